//! The metrics of all parts, and those of the process itself.

use std::fmt;
use std::time::Duration;

use mesh_relay::Relay;
use mesh_server::App;
use mesh_server::metrics::register_population;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::derp_map::MapAge;

/// What the names of our metrics begin with.
pub(crate) const PREFIX: &str = "meshcontrol";

/// Measurements of all parts, and the registry that shows them.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) store: mesh_store::Metrics,
    pub(crate) streamer: mesh_streamer::Metrics,
    pub(crate) server: mesh_server::metrics::Metrics,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = base();
        let ours = registry.sub_registry_with_prefix(PREFIX);
        let store = mesh_store::Metrics::register(ours);
        let streamer = mesh_streamer::Metrics::register(ours);
        let server = mesh_server::metrics::Metrics::register(ours);
        Self { registry, store, streamer, server }
    }

    /// The registry with everything in it, once the parts are there that are asked only when somebody looks.
    pub(crate) fn into_registry(
        mut self,
        app: &App,
        relay: Option<&Relay>,
        map_age: MapAge,
    ) -> Registry {
        let ours = self.registry.sub_registry_with_prefix(PREFIX);
        map_age.register(ours);
        if let Some(relay) = relay {
            mesh_relay::metrics::register(relay.stats().clone(), ours);
        }
        register_population(app.clone(), ours);
        self.registry
    }
}

/// A registry with what every server of this program tells: of itself, its runtime and its process.
pub(crate) fn base() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector));
    let ours = registry.sub_registry_with_prefix(PREFIX);
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    ours.register("build", "Which program this is", version);
    ours.register_collector(Box::new(RuntimeCollector(tokio::runtime::Handle::current())));
    registry
}

/// The runtime that all tasks share.
#[derive(Debug)]
struct RuntimeCollector(tokio::runtime::Handle);

impl Collector for RuntimeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let runtime = self.0.metrics();
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let mut gauge = |name, help, value: usize| show(name, help, &ConstGauge::new(value as u64));
        gauge("runtime_workers", "Threads that run tasks", runtime.num_workers())?;
        gauge("runtime_tasks", "Tasks that are alive", runtime.num_alive_tasks())?;
        let help = "Tasks that wait for any worker";
        gauge("runtime_queue_depth", help, runtime.global_queue_depth())?;
        let workers = 0..runtime.num_workers();
        let busy: f64 =
            workers.map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64()).sum();
        show("runtime_busy_seconds", "Time that workers were busy", &ConstCounter::new(busy))
    }
}

/// What the system says of this process, by the names that all Prometheus clients use.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Elsewhere than on Linux there is nothing to read.
        let Some(process) = Process::read() else { return Ok(()) };
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let cpu = ConstCounter::new(process.cpu_seconds);
        show("process_cpu_seconds", "Processor time, of the system for us too", &cpu)?;
        let mut gauge = |name, help, value: u64| show(name, help, &ConstGauge::new(value));
        gauge("process_resident_memory_bytes", "Memory in RAM", process.resident_bytes)?;
        gauge("process_virtual_memory_bytes", "Memory that is mapped", process.virtual_bytes)?;
        gauge("process_threads", "Threads", process.threads)?;
        gauge("process_open_fds", "Open files and sockets", process.open_fds)?;
        gauge("process_max_fds", "Files and sockets that may be open", process.max_fds)?;
        let started_at = ConstGauge::new(process.started_at_seconds);
        show("process_start_time_seconds", "When it was started, in Unix time", &started_at)
    }
}

/// What `/proc` says.
#[derive(Debug, PartialEq)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_fds: u64,
    max_fds: u64,
    started_at_seconds: f64,
}

impl Process {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let system = std::fs::read_to_string("/proc/stat").ok()?;
        let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let max_fds = limits.current.unwrap_or(u64::MAX);
        Some(Self { open_fds, max_fds, ..Self::parse(&stat, &system)? })
    }

    /// Reads `/proc/self/stat` and the time of boot in `/proc/stat`.
    ///
    /// Source: proc(5): utime, stime, `num_threads`, starttime, vsize and rss are fields 14, 15, 20, 22, 23 and 24.
    fn parse(stat: &str, system: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
            virtual_bytes: field(23)?,
            threads: field(20)?,
            open_fds: 0,
            max_fds: 0,
            started_at_seconds: boot.trim().parse::<f64>().ok()? + seconds(field(22)?),
        })
    }
}

/// Ticks of the system's clock in seconds, to the millisecond.
fn seconds(ticks: u64) -> f64 {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 500 0 0 0 150 50 0 0 20 0 9 0 1000 4096000 300 \
                    18446744073709551615 1 1 0";
        let process = Process::parse(stat, "cpu  1 2\nbtime 1700000000\nprocesses 5\n").unwrap();
        assert!((process.cpu_seconds - seconds(200)).abs() < 1e-9);
        assert_eq!((process.threads, process.virtual_bytes), (9, 4_096_000));
        assert_eq!(process.resident_bytes, 300 * rustix::param::page_size() as u64);
        assert!((process.started_at_seconds - 1_700_000_000.0 - seconds(1000)).abs() < 1e-3);
        assert_eq!(Process::parse("", ""), None);
        assert_eq!(Process::parse("7 (x) S 1", "btime 1"), None);
    }
}
