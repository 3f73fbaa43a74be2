// SPDX-License-Identifier: GPL-2.0-only
//! The unit of dist/ under a real systemd, in namespaces of its own: `make test-dist`.

mod support;

use std::process::Output;
use std::time::Duration;
use support::daemon::{Daemon, program};
use support::lab::{Lab, SERVER};
use support::live::root_or_skip;
use support::netns::text;
use support::outcome::attached;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Direction, Path, TcpPair};
use support::wait::{becomes_true, eventually};

/// What the unit asks for.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// Longer than the watchdog waits, with the restart.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Makes a machine of namespaces: what it writes to /etc and /usr/sbin stays in memory. The units
/// are ours alone.
const MACHINE: &str = r#"
mount -t tmpfs tmpfs /mnt
mkdir /mnt/units /mnt/new /mnt/work
for directory in etc usr/sbin; do
    mkdir -p "/mnt/new/$directory" "/mnt/work/$directory"
    mount -t overlay overlay -o "lowerdir=/$directory,upperdir=/mnt/new/$directory,workdir=/mnt/work/$directory" "/$directory"
done
mount -t tmpfs tmpfs /run
mount -t cgroup2 none /sys/fs/cgroup
for target in default sysinit basic shutdown umount final exit network-pre multi-user; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $target >/mnt/units/$target.target
done
cp "$DIST/systemd/bpfw.service" /mnt/units
cp "$PROGRAM" /usr/sbin/bpfw
systemd-sysusers "$DIST/systemd/sysusers.conf"
export SYSTEMD_UNIT_PATH=/mnt/units container=bpfw-test
exec /lib/systemd/systemd --system --unit=default.target --log-target=console
"#;

/// A machine whose first process is systemd; its network is the lab's router.
struct Machine {
    systemd: Daemon,
}

impl Machine {
    fn boot(lab: &Lab) -> Self {
        let dist = format!("{}/dist", env!("CARGO_MANIFEST_DIR"));
        let script = format!("PROGRAM={} DIST={dist}\n{MACHINE}", program());
        let words = ["-Cpmuif", "--mount-proc", "--kill-child", "sh", "-ec", &script];
        let machine = Self { systemd: Daemon::start_program(&lab.router, "unshare", &words) };
        eventually(LIMIT, "it is up", || machine.is_up());
        machine
    }

    fn is_up(&self) -> bool {
        text(&self.run(&["systemctl", "is-system-running"]).stdout).trim() == "running"
    }

    /// The pid of systemd, as the host sees it.
    fn init(&self) -> String {
        let pid = self.systemd.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    fn run(&self, words: &[&str]) -> Output {
        let init = self.init();
        let enter = ["-t", &init, "-m", "-p", "-n", "-C", "-u", "-i"];
        let mut command = std::process::Command::new("nsenter");
        command.args(enter).args(words).output().expect("nsenter starts")
    }

    /// Runs a command that must succeed.
    fn sh(&self, script: &str) -> String {
        let output = self.run(&["sh", "-ec", script]);
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn property(&self, name: &str) -> String {
        let output = self.run(&["systemctl", "show", "-P", name, "bpfw"]);
        text(&output.stdout).trim().to_owned()
    }

    fn configure(&self, interfaces: &str, more: &str) {
        let file = format!("hook = \"tc\"\ninterfaces = {interfaces}\nprove-every = 0\n{more}");
        self.sh(&format!("cat >/etc/bpfw.toml <<'END'\n{file}\nEND\nchmod 644 /etc/bpfw.toml"));
    }

    /// What the kernel says of the daemon.
    fn fact(&self, name: &str) -> String {
        let pid = self.property("MainPID");
        self.sh(&format!("sed -n 's/^{name}:[[:space:]]*//p' /proc/{pid}/status")).trim().to_owned()
    }

    fn wait_for_restart(&self, what: &str, number: &str, limit: Duration) {
        let is_back = becomes_true(limit, || {
            self.property("NRestarts") == number && self.property("ActiveState") == "active"
        });
        let status = self.run(&["systemctl", "--no-pager", "status", "bpfw"]);
        assert!(is_back, "{what}: {}", text(&status.stdout));
    }
}

#[test]
#[ignore = "takes systemd, and a minute: make test-dist"]
fn the_unit_works_under_a_real_systemd() {
    if !root_or_skip("the_unit_works_under_a_real_systemd") {
        return;
    }
    let lab = lab("tc", "service", &snat_rules());
    let before = attached(&lab);
    let machine = Machine::boot(&lab);
    // Without a file, it stays quiet.
    machine.sh("systemctl start bpfw");
    assert_eq!(machine.property("ActiveState"), "inactive");
    machine.configure(r#"["lan0", "wan0", "ppp0"]"#, "max-connections = 16000");
    machine.sh("systemctl start bpfw");
    assert_eq!(machine.property("ActiveState"), "active");
    let user = machine.sh("id -u bpfw");
    assert_eq!(machine.fact("Uid").split_whitespace().next(), Some(user.trim()));
    assert_eq!(u64::from_str_radix(&machine.fact("CapEff"), 16), Ok(CAPABILITIES));
    assert_eq!((&*machine.fact("NoNewPrivs"), &*machine.fact("Seccomp")), ("1", "2"));
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    eventually(LIMIT, "it says so", || machine.property("StatusText").starts_with("forwarding, "));
    expect_reloads(&machine);
    assert!(echo_is_fast(&lab, &client, 1), "a reload that changes nothing of it");
    // A crash, and a daemon that hangs.
    machine.sh("kill -KILL $(systemctl show -P MainPID bpfw)");
    machine.wait_for_restart("it is back after a crash", "1", LIMIT);
    wait_until_fast(&lab, &client);
    machine.sh("kill -STOP $(systemctl show -P MainPID bpfw)");
    machine.wait_for_restart("it is back after it hung", "2", WATCHDOG);
    wait_until_fast(&lab, &client);
    // Restarts under a transfer, whose every byte is compared.
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    std::thread::scope(|scope| {
        let restarts =
            scope.spawn(|| (0..3).for_each(|_| drop(machine.sh("systemctl restart bpfw"))));
        for seed in 0..8 {
            pair.transfer(Direction::ToClient, 16 << 20, seed);
        }
        restarts.join().expect("all three");
    });
    wait_until_fast(&lab, &client);
    machine.sh("systemctl stop bpfw");
    assert_eq!(machine.property("Result"), "success");
    assert_eq!(attached(&lab), before);
    // A mistake in the file is no reason to try again each second.
    machine.configure("7", "");
    assert!(!machine.run(&["systemctl", "start", "bpfw"]).status.success());
    assert_eq!(machine.property("ExecMainStatus"), "2");
    assert_eq!(machine.property("ActiveState"), "failed");
}

/// What `systemctl reload` says is what `bpfw reload` says.
fn expect_reloads(machine: &Machine) {
    machine.configure(r#"["lan0", "wan0"]"#, "max-connections = 16000");
    machine.sh("systemctl reload bpfw");
    for mistake in ["intervall = 7", "max-connections = 17000"] {
        machine.configure(r#"["lan0", "wan0"]"#, mistake);
        assert!(!machine.run(&["systemctl", "reload", "bpfw"]).status.success(), "{mistake}");
        assert_eq!(machine.property("ActiveState"), "active");
    }
    machine.configure(r#"["lan0", "wan0"]"#, "max-connections = 16000");
    machine.sh("systemctl reload bpfw");
    // Members of the group may ask.
    let asked = machine.run(&[
        "setpriv",
        "--reuid=65534",
        "--regid=bpfw",
        "--clear-groups",
        "bpfw",
        "status",
    ]);
    assert_eq!(asked.status.code(), Some(0), "{}", text(&asked.stderr));
}
