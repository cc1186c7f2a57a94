mod api_keys;
mod auth;
mod nodes;
mod preauth_keys;
mod users;
