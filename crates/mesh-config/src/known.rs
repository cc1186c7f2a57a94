//! Names that are no keys of ours but that people have in their configuration, and what to say.

/// When a key that is not supported needs no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Whenever it is given, it is told.
    Never,
    /// With this value it asks for what happens anyway.
    When(&'static str),
    /// It only refines another key, which is told.
    Always,
}

/// A key, or a whole section, of headscale that is read over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ignored {
    pub(crate) path: &'static str,
    pub(crate) quiet: Quiet,
    /// What follows from its being ignored, or what to do instead.
    pub(crate) consequence: &'static str,
}

const fn ignored(path: &'static str, quiet: Quiet, consequence: &'static str) -> Ignored {
    Ignored { path, quiet, consequence }
}

const TUNING_CONSEQUENCE: &str = "it tunes machinery of headscale that does not exist here";

/// Everything of headscale's configuration that is accepted without effect.
pub(crate) const IGNORED: &[Ignored] = &[
    ignored("disable_check_updates", Quiet::When("true"), "nothing ever looks for updates"),
    ignored("node.routes.ha", Quiet::Never, "subnet routers are not probed"),
    ignored("database.debug", Quiet::When("false"), "statements are not logged"),
    ignored("database.gorm", Quiet::Never, "it tunes a library that is not used here"),
    ignored("acme_url", Quiet::Always, ""),
    ignored("acme_email", Quiet::Always, ""),
    ignored(
        "tls_letsencrypt_hostname",
        Quiet::When(""),
        "no certificate is requested; give files with tls_cert_path and tls_key_path",
    ),
    ignored("tls_letsencrypt_cache_dir", Quiet::Always, ""),
    ignored("tls_letsencrypt_challenge_type", Quiet::Always, ""),
    ignored("tls_letsencrypt_listen", Quiet::Always, ""),
    ignored("dns.extra_records_path", Quiet::When(""), "write the records in dns.extra_records"),
    ignored("oidc", Quiet::Never, "nodes join by preauth key or by an admin's approval"),
    ignored("logtail.enabled", Quiet::When("false"), "clients are not told to send logs"),
    ignored("taildrop.enabled", Quiet::When("false"), "nodes do not exchange files"),
    ignored("auto_update.enabled", Quiet::When("false"), "clients decide on updates themselves"),
    ignored("tuning.notifier_send_timeout", Quiet::Never, TUNING_CONSEQUENCE),
    ignored("tuning.batch_change_delay", Quiet::Never, TUNING_CONSEQUENCE),
    ignored("tuning.node_mapsession_buffered_chan_size", Quiet::Never, TUNING_CONSEQUENCE),
    ignored("tuning.batcher_workers", Quiet::Never, TUNING_CONSEQUENCE),
    ignored("tuning.node_store_batch_size", Quiet::Never, TUNING_CONSEQUENCE),
    ignored("tuning.node_store_batch_timeout", Quiet::Never, TUNING_CONSEQUENCE),
];

/// What becomes of a key that headscale no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is refused: without it the configuration means something else.
    Refused,
    /// It is refused unless the key that took its place is given too.
    Replaced(&'static str),
    /// It is told and read over, as headscale reads over it.
    Dropped,
    /// It is told and still taken as an alias.
    Renamed,
}

/// A key of an older headscale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removed {
    pub(crate) path: &'static str,
    pub(crate) fate: Fate,
    /// What to do.
    pub(crate) advice: &'static str,
}

const fn removed(path: &'static str, fate: Fate, advice: &'static str) -> Removed {
    Removed { path, fate, advice }
}

const GONE: &str = "delete it, nothing takes its place";
const RANDOM_PORT: &str = "set \"randomizeClientPort\": true in the policy instead";
const PREFIXES: &str = "use prefixes.v4 and prefixes.v6 instead";
const DATABASE: &str = "use the keys below database instead";
const GRPC: &str = "delete it, the command line talks to unix_socket or listen_addr";

/// Every key of older versions of headscale that its users may still have.
pub(crate) const REMOVED: &[Removed] = &[
    removed("acl_policy_path", Fate::Replaced("policy.path"), "use policy.path instead"),
    removed("dns_config.magic_dns", Fate::Replaced("dns.magic_dns"), "use dns.magic_dns instead"),
    removed(
        "dns_config.base_domain",
        Fate::Replaced("dns.base_domain"),
        "use dns.base_domain instead",
    ),
    removed(
        "dns_config.override_local_dns",
        Fate::Replaced("dns.override_local_dns"),
        "use dns.override_local_dns instead",
    ),
    removed(
        "dns_config.nameservers",
        Fate::Replaced("dns.nameservers.global"),
        "use dns.nameservers.global instead",
    ),
    removed(
        "dns_config.restricted_nameservers",
        Fate::Replaced("dns.nameservers.split"),
        "use dns.nameservers.split instead",
    ),
    removed(
        "dns_config.domains",
        Fate::Replaced("dns.search_domains"),
        "use dns.search_domains instead",
    ),
    removed(
        "dns_config.extra_records",
        Fate::Replaced("dns.extra_records"),
        "use dns.extra_records instead",
    ),
    removed("dns_config.use_username_in_magic_dns", Fate::Refused, GONE),
    removed("dns.use_username_in_magic_dns", Fate::Refused, GONE),
    removed("oidc.strip_email_domain", Fate::Refused, GONE),
    removed("oidc.map_legacy_users", Fate::Refused, GONE),
    removed("oidc.expiry", Fate::Refused, "use node.expiry instead"),
    removed("randomize_client_port", Fate::Refused, RANDOM_PORT),
    removed(
        "ephemeral_node_inactivity_timeout",
        Fate::Renamed,
        "use node.ephemeral.inactivity_timeout instead",
    ),
    removed("ip_prefixes", Fate::Dropped, PREFIXES),
    removed("db_type", Fate::Dropped, DATABASE),
    removed("db_path", Fate::Dropped, DATABASE),
    removed("db_host", Fate::Dropped, DATABASE),
    removed("db_port", Fate::Dropped, DATABASE),
    removed("db_name", Fate::Dropped, DATABASE),
    removed("db_user", Fate::Dropped, DATABASE),
    removed("db_pass", Fate::Dropped, DATABASE),
    removed("db_ssl", Fate::Dropped, DATABASE),
    removed("grpc_listen_addr", Fate::Dropped, GRPC),
    removed("grpc_allow_insecure", Fate::Dropped, GRPC),
];

/// Variables with our prefix that set no key: those of the program itself.
pub(crate) const OTHER_VARIABLES: &[&str] = &["MESHCONTROL_CONFIG", "MESHCONTROL_DATA_DIR"];

/// What the variables begin with that the project's own tests use.
pub(crate) const TEST_VARIABLE_PREFIX: &str = "MESHCONTROL_TEST_";
