mod api_keys;
mod auth;
mod nodes;
mod policy;
mod preauth_keys;
mod users;
