//! What to do next, for whoever started a server without nodes.

use std::io::Write;
use std::path::Path;

/// Prints how to let the first node in.
pub(crate) fn print(server_url: &str, data_dir: &Path) -> std::io::Result<()> {
    let shown = data_dir.display();
    let is_default = mesh_config::rim::default_data_dir().is_ok_and(|default| default == data_dir);
    let flag = if is_default { String::new() } else { format!(" --data-dir {shown}") };
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nmeshcontrol is ready at {server_url}, its data is in {shown}.\n\
         Let a first node in:\n\
         \n  meshcontrol{flag} users create alice\
         \n  meshcontrol{flag} preauthkeys create --user alice\
         \n  tailscale up --login-server {server_url} --auth-key KEY     (on the node)\n"
    )?;
    out.flush()
}
