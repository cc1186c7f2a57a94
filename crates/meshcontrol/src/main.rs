//! The program: serve and the admin verbs.
mod serve;

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().expect("first");
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let source = mesh_config::rim::gather(None, None, Vec::new())?;
    let (config, warnings) = mesh_config::load(&source).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    drop(warnings);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve::run(config, &source.data_dir))
}
