//! The agent as a systemd unit.
//!
//! Hardening ends where steps begin: they run in the agent's control group and install software, so the file system,
//! set-user-id bits, namespaces (sandboxes make them) and writable executable memory (JIT compilers) stay allowed.

use std::path::{Path, PathBuf};

use super::{LABEL, PROGRAM};

pub const SYSTEMCTL: &str = "/usr/bin/systemctl";
pub const UNIT: &str = "board-agent.service";

pub fn path() -> PathBuf {
    Path::new("/etc/systemd/system").join(UNIT)
}

pub fn unit(data: &Path) -> String {
    let data = quote(data);
    format!(
        r#"[Unit]
Description=Board agent: holds the link to the board and does what its signed catalog says
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={PROGRAM} run --wait-for-join --data {data}
Environment=HOME=/root
WorkingDirectory=/
UMask=0022
Restart=always
RestartSec=10
# The agent itself ends what may be ended. An installer that must not be killed outlives even an agent that was.
KillMode=process
TimeoutStopSec=600
SyslogIdentifier={LABEL}

LimitCORE=0
KeyringMode=private
LockPersonality=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictRealtime=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"#
    )
}

/// One word of `ExecStart`: `%` and `$` mean something there.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}
