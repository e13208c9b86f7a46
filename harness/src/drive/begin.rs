//! The begin of a run or of an epoch, and what its windows are filled with.

use std::path::Path;

use tailbeam_probes::clock;
use tailbeam_probes::collect::heap::live;
use tailbeam_probes::collect::host::Host;
use tailbeam_probes::collect::room::disk_bytes;
use tailbeam_probes::collect::{build, host, process};

use super::controller::Controller;
use super::heap::Heap;
use super::latency::{matrix, stamps};
use super::readings::{Carried, no_pss, reading};
use super::reserve::Reserve;
use super::resume::Resume;
use super::room;
use super::windows::Readings;
use super::writer::RunWriter;
use super::{DriveError, Progress};
use crate::evidence::records::{Manifest, Reading, Unknown};
use crate::evidence::{Began, Store};
use crate::load::Workload;
use crate::load::latency::BOUND_NS;
use crate::plan::Plan;

/// Where what is measured goes.
pub(super) enum Target<'a> {
    /// To a new run.
    New(&'a Store),
    /// To a new epoch of a run whose process died.
    Resumed(Box<Resume>),
}

impl Target<'_> {
    /// Time in which requests are still to be due, ns.
    pub(super) fn left_ns(&self, plan: &Plan) -> u64 {
        match self {
            Self::New(_) => plan.duration_ns,
            Self::Resumed(resume) => resume.left_ns(),
        }
    }

    /// The store.
    pub(super) fn root(&self) -> &Path {
        match self {
            Self::New(store) => store.root(),
            Self::Resumed(resume) => resume.root(),
        }
    }

    /// Whether the run may go on on these cores.
    pub(super) fn check_cores(&self, cores: &[usize]) -> Result<(), DriveError> {
        match self {
            Self::New(_) => Ok(()),
            Self::Resumed(resume) => {
                resume.check_cores(&cores.iter().map(|&core| core as u64).collect::<Vec<_>>())
            }
        }
    }
}

/// Who begins, when and where.
pub(super) fn began(host: &Host, start_ns: u64) -> Began {
    Began {
        unix_ns: clock::realtime_ns(),
        mono_ns: clock::monotonic_ns(),
        start_ns,
        boot_id: host.boot_id.clone().ok(),
        build_id: build::build_id().ok(),
        pid: std::process::id(),
        host: crate::host::one_line(host),
        disk_held: None,
    }
}

impl<W: Workload> Controller<'_, W> {
    pub(super) fn open_run(
        &mut self,
        target: Target<'_>,
        start_ns: u64,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<RunWriter, DriveError> {
        let host = host::describe();
        let mut began = began(&host, start_ns);
        let unknowns = self.observe()?;
        let units = self.units()?;
        let (id, writer) = match target {
            Target::Resumed(resume) => {
                // Before anything of the run is touched: a refusal must leave it as it is.
                let (reserve, held) = self.hold(resume.root(), &resume.dir().join("seg"))?;
                began.disk_held = Some(held);
                self.windows.number = resume.window();
                self.carried = Carried::of(resume.last_window());
                let id = resume.id().to_owned();
                resume.keep_heap()?;
                let (heap, _) = Heap::start(resume.dir(), self.plan, began.unix_ns);
                self.heap = Some(heap);
                let mut writer = resume.begin(began)?;
                writer.reserve = reserve;
                (id, writer)
            }
            Target::New(store) => {
                // Nothing of it is written yet.
                let (reserve, held) = self.hold(store.root(), &store.root().join("none"))?;
                began.disk_held = Some(held);
                let (id, dir) = store.create_run(began.unix_ns)?;
                let (heap, no_heap) = Heap::start(&dir, self.plan, began.unix_ns);
                self.heap = Some(heap);
                let manifest = Manifest {
                    id: id.clone(),
                    recorded_by: env!("CARGO_PKG_VERSION").to_owned(),
                    workload: self.plan.workload.clone(),
                    started_unix_ns: began.unix_ns,
                    start_ns,
                    plan_sha256: String::new(),
                    cores: self.runtime.cores().iter().map(|&core| core as u64).collect(),
                    limits_ns: self.limits.clone(),
                    host: crate::host::one_line(&host),
                    no_heap: no_heap.map(|why| Unknown { unknown: why.cause, remedy: why.remedy }),
                    matrix: matrix(self.plan),
                    stamps: stamps(&self.runtime.choice().stamps),
                    clock_bound_ns: self.latency.setup().on.then_some(BOUND_NS),
                    unknowns,
                    units,
                    began: Some(began),
                };
                let host = crate::host::json(&host);
                let mut writer = RunWriter::create(&dir, self.plan, manifest, &host)?;
                writer.reserve = reserve;
                (id, writer)
            }
        };
        self.tell_run(&id);
        let event = Some(format!("run {id}"));
        progress(&Progress { phase: "measure", event, ..Progress::default() });
        Ok(writer)
    }

    /// Holds room for the windows of the run and its end, of which `seg` has some, and says how much, or why none.
    fn hold(
        &self,
        root: &Path,
        seg: &Path,
    ) -> Result<(Option<(Reserve, u64)>, Reading), DriveError> {
        if self.control.board.is_some() {
            let unknown = "faults of chaos fill the disk of their subject: it holds no room";
            let remedy = "record it with `tailbeam soak`";
            return Ok((None, Reading::missing(unknown, remedy)));
        }
        let cores = self.shards as u64;
        let needed = room::to_hold(self.plan, cores);
        match Reserve::hold(root, seg, needed) {
            Ok(reserve) => {
                let held = Reading::Value(reserve.held());
                Ok((Some((reserve, room::of_a_window(self.plan, cores))), held))
            }
            // The free space that was looked at before is not to be had: somebody was faster.
            Err(why) if why.full => Err(match disk_bytes(root) {
                Ok(available) => DriveError::StoreFull { needed, available },
                Err(gone) => {
                    let cause =
                        format!("{}; how much is free is unknown: {}", why.cause, gone.cause);
                    DriveError::Record { path: root.display().to_string(), cause }
                }
            }),
            Err(why) => Ok((None, Reading::missing(why.cause, why.remedy))),
        }
    }

    pub(super) fn write_window(&mut self, writer: &mut RunWriter) -> Result<(), DriveError> {
        let memory = process::memory();
        let (cost, lowered) = self.cost.take();
        let now_ns = clock::monotonic_ns();
        let pss = memory.as_ref().ok().and_then(|m| m.pss_bytes).ok_or_else(no_pss);
        self.live.rss_bytes = memory.as_ref().ok().map(|m| m.rss_bytes);
        let readings = Readings {
            cores: self.carried.cores(self.before.cores_since(self.runtime)),
            rss_bytes: reading(memory.map(|m| m.rss_bytes)),
            pss_bytes: reading(pss),
            live_bytes: reading(live().map(|live| live.bytes)),
            cpu_ns: self.carried.cpu(reading(self.before.cpu_since())),
            cost,
            lowered,
            stalls: Some(self.take_stalls()),
        };
        self.windows.write(writer, now_ns, readings, &self.latency.take())?;
        self.logs.tidy(self.plan.timeout_ns);
        Ok(())
    }
}
