//! What to do next, for whoever started a server without nodes.

use std::io::Write;
use std::path::Path;

/// Prints how to let the first node in.
pub(crate) fn print(server_url: &str, data_dir: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nmeshcontrol is ready at {server_url}, its data is in {}.\n\
         Let a first node in:\n\
         \n  meshcontrol users create alice\
         \n  meshcontrol preauthkeys create --user alice\
         \n  tailscale up --login-server {server_url} --auth-key KEY     (on the node)\n",
        data_dir.display()
    )?;
    out.flush()
}
