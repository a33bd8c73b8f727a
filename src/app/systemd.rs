//! The service manager: the unit that starts us, and what we tell it (sd_notify(3): datagrams of
//! `KEY=VALUE` lines to the socket that `$NOTIFY_SOCKET` names).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads the environment that systemd gives and sends datagrams"
)]

use crate::engine::driver::Handle;
use crate::store::SqliteStore;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Who started us and wants to hear; without a socket nothing is sent.
#[derive(Clone, Debug, Default)]
pub struct Manager(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Manager {
    /// As the environment says.
    pub fn from_env() -> Self {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) => Self::at(&name.to_string_lossy()),
            None => Self(None),
        }
    }

    /// `name`: a path, or `@name` in the abstract namespace.
    pub fn at(name: &str) -> Self {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None if name.starts_with('/') => SocketAddr::from_pathname(name),
            None => return Self(None),
        };
        let opened = address.and_then(|a| Ok((UnixDatagram::unbound()?, a)));
        match opened {
            Ok((socket, address)) => {
                socket.set_nonblocking(true).ok();
                Self(Some(Arc::new((socket, address))))
            }
            Err(e) => {
                tracing::warn!(socket = name, error = %e, "the service manager can't be told anything");
                Self(None)
            }
        }
    }

    /// Sends lines like `READY=1`. A manager that does not listen costs us nothing.
    pub fn tell(&self, lines: &str) {
        let Some(to) = &self.0 else { return };
        if let Err(e) = to.0.send_to_addr(lines.as_bytes(), &to.1) {
            tracing::debug!(error = %e, "the service manager did not hear us");
        }
    }
}

/// How often the manager wants a sign of life: `$WATCHDOG_USEC`, where it is meant for this
/// process.
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|us| *us > 0).map(Duration::from_micros)
}

/// Two signs of life in every `limit`, as sd_watchdog_enabled(3) asks for, each only when the
/// engine's loop and the database's writer both answered just now. Ends with the engine.
pub async fn signs_of_life(manager: Manager, limit: Duration, engine: Handle, store: SqliteStore) {
    let pace = limit / 2;
    let mut tick = tokio::time::interval(pace);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match tokio::time::timeout(pace, progress(&engine, &store)).await {
            Ok(true) => manager.tell("WATCHDOG=1"),
            Ok(false) => return,
            Err(_) => tracing::error!(
                "the engine or the database's writer does not answer; the service manager restarts us when that lasts"
            ),
        }
    }
}

/// `false`: the engine has ended.
async fn progress(engine: &Handle, store: &SqliteStore) -> bool {
    engine.ask(|_, _| ()).await.is_some() && store.ping().await.is_ok()
}

/// CLOCK_MONOTONIC in microseconds, as `RELOADING=1` must carry it.
pub fn reloading() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    format!("RELOADING=1\nMONOTONIC_USEC={us}")
}

/// `farrier systemd-unit`: prints the unit.
pub fn print_unit(config: &Path, key: Option<&Path>) -> ExitCode {
    let binary = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/farrier".into());
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_path_buf());
    // Rights are given for what is configured; a file that can't be read yet asks for none.
    let daemon = super::files::load(&config).map(|loaded| loaded.daemon);
    let netboot = daemon.is_ok_and(|d| d.dhcp.is_some() || d.tftp.is_some());
    print!("{}", unit_with(&binary, &config, key, netboot));
    ExitCode::SUCCESS
}

/// The unit's text for a daemon without DHCP and TFTP. It must name `/var/lib/farrier` as its
/// `[paths] state`.
pub fn unit(binary: &Path, config: &Path, key: Option<&Path>) -> String {
    unit_with(binary, config, key, false)
}

/// The same; with `netboot` it may answer DHCP and TFTP: ports below 1024, and sockets that belong to
/// one interface.
pub fn unit_with(binary: &Path, config: &Path, key: Option<&Path>, netboot: bool) -> String {
    let rights = match netboot {
        true => {
            "AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW\n\
             CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_RAW"
        }
        false => {
            "# `[listen.dhcp]` and `[listen.tftp]` need more: print the unit again once they are configured.\n\
             CapabilityBoundingSet="
        }
    };
    let (binary, config) = (binary.display(), config.display());
    let credential = match key {
        Some(key) => {
            format!("LoadCredential={}:{}\n", crate::store::key::SYSTEMD_CREDENTIAL, key.display())
        }
        None => String::new(),
    };
    format!(
        "[Unit]
Description=Farrier, bare-metal machine lifecycle
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStartPre={binary} check --config {config}
ExecStart={binary} serve --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
# Files that are wrong stay wrong: a person must look.
RestartPreventExitStatus=2
# A restart is a recovery: nothing is lost by one, so a daemon that makes no progress is ended.
WatchdogSec=120
# Actions under way end first; the longest takes 120 s.
TimeoutStopSec=180
# Make it once: useradd --system --home-dir /var/lib/farrier --shell /usr/sbin/nologin farrier
User=farrier
StateDirectory=farrier
StateDirectoryMode=0700
WorkingDirectory=/var/lib/farrier
UMask=0077
{credential}LimitNOFILE=65536
LimitCORE=0
{rights}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
# Netlink: the addresses of the interfaces on which DHCP is answered.
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
    )
}
