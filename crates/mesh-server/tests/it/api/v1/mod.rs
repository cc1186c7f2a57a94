mod api_keys;
mod auth;
mod derp_map;
mod nodes;
mod policy;
mod preauth_keys;
mod users;
