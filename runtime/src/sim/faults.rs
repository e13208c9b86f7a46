//! What goes wrong in a simulation, and how often.

use super::Rng;

/// Faults of rings, wakes, clocks and operations, and what a kernel cannot do. Numbers that end in `_ppm` are per
/// million occasions; times are upper bounds of what is drawn, ns. The runtime must keep its promises under all of them
/// but the last four, which no ring may show: they prove that a harness finds what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// A shard's clock is ahead of the others.
    pub skew_max_ns: u64,
    /// A step of a shard takes this long.
    pub step_max_ns: u64,
    /// A look at the clock takes this long: what lies between two looks in one step.
    pub look_max_ns: u64,
    /// A core stops between two steps, as if it had been taken away.
    pub stalls_ppm: u32,
    /// For how long.
    pub stall_max_ns: u64,
    /// Time from the submission of a bell to its arrival. Bells overtake each other.
    pub bell_delay_max_ns: u64,
    /// A bell does not fit the queue.
    pub bells_unqueued_ppm: u32,
    /// A bell fails, and its sender is told so.
    pub bells_unreached_ppm: u32,
    /// A bell arrives twice.
    pub bells_doubled_ppm: u32,
    /// A call for submission fails: each of its bells is sent, lost or left for the next call.
    pub submits_failed_ppm: u32,
    /// A call for submission takes only the first bells and leaves the others for the next call.
    pub submits_short_ppm: u32,
    /// Such a call says that it has left nothing: no ring does, and the next call sends it all the same.
    pub shorts_unsaid_ppm: u32,
    /// A sleeper wakes for nothing, per step.
    pub wakes_early_ppm: u32,
    /// A sleeper oversleeps its time.
    pub wake_late_max_ns: u64,
    /// Time from the submission of an operation to its execution, and from the readiness of its descriptor. Operations,
    /// and their cancellations, overtake each other.
    pub op_delay_max_ns: u64,
    /// An operation, or its cancellation, does not fit the queue.
    pub ops_unqueued_ppm: u32,
    /// An operation fails, each time that it is tried; a send or a write may have moved some bytes.
    pub ops_failed_ppm: u32,
    /// A read, write, send or receive moves fewer bytes than it could.
    pub ops_short_ppm: u32,
    /// A standing receive or accept ends with a result and must be asked for anew, as when completions overflow.
    pub streams_ended_ppm: u32,
    /// A cancellation comes when the operation is being tried: it is cancelled if it would wait.
    pub cancels_late_ppm: u32,
    /// The kernel does not take receive buffers: each receive brings its own.
    pub lends_refused_ppm: u32,
    /// Each accept takes one connection.
    pub no_multishot_accept: bool,
    /// Each receive brings its own buffer.
    pub no_multishot_recv: bool,
    /// Every send copies.
    pub no_send_zc: bool,
    /// A bell vanishes and nobody is told: no ring does that. To prove that a harness finds a lost wake.
    pub bells_lost_ppm: u32,
    /// The sender of a bell that fails is told so with its next call, which may never come. To prove that a
    /// harness finds a late wake.
    pub bells_told_late_ppm: u32,
    /// The last completion of an operation vanishes. To prove that a harness finds an operation that never ends.
    pub completions_lost_ppm: u32,
    /// A send or a write that was short says that it was not. To prove that a harness finds lost bytes.
    pub counts_overstated_ppm: u32,
}

impl Faults {
    /// Nothing goes wrong; time passes all the same.
    pub const NONE: Self = Self {
        skew_max_ns: 0,
        step_max_ns: 1_000,
        look_max_ns: 0,
        stalls_ppm: 0,
        stall_max_ns: 0,
        bell_delay_max_ns: 0,
        bells_unqueued_ppm: 0,
        bells_unreached_ppm: 0,
        bells_doubled_ppm: 0,
        submits_failed_ppm: 0,
        submits_short_ppm: 0,
        shorts_unsaid_ppm: 0,
        wakes_early_ppm: 0,
        wake_late_max_ns: 0,
        op_delay_max_ns: 0,
        ops_unqueued_ppm: 0,
        ops_failed_ppm: 0,
        ops_short_ppm: 0,
        streams_ended_ppm: 0,
        cancels_late_ppm: 0,
        lends_refused_ppm: 0,
        no_multishot_accept: false,
        no_multishot_recv: false,
        no_send_zc: false,
        bells_lost_ppm: 0,
        bells_told_late_ppm: 0,
        completions_lost_ppm: 0,
        counts_overstated_ppm: 0,
    };

    /// A mixture: each fault is absent, rare or frequent, so that runs differ in kind and not in chance
    /// alone.
    pub fn drawn(rng: &mut Rng) -> Self {
        let mut often = || rng.one_of(&[0, 0, 1_000, 50_000, 400_000]);
        let faults = Self {
            stalls_ppm: often() / 20,
            bells_unqueued_ppm: often(),
            bells_unreached_ppm: often(),
            bells_doubled_ppm: often(),
            submits_failed_ppm: often(),
            submits_short_ppm: often(),
            wakes_early_ppm: often() / 4,
            ..Self::NONE
        };
        let faults = Self {
            skew_max_ns: rng.one_of(&[0, 100, 20_000, 2_000_000]),
            step_max_ns: rng.one_of(&[200, 2_000, 50_000]),
            look_max_ns: rng.one_of(&[0, 20, 2_000]),
            stall_max_ns: rng.one_of(&[50_000, 5_000_000, 200_000_000]),
            bell_delay_max_ns: rng.one_of(&[0, 5_000, 300_000, 20_000_000]),
            wake_late_max_ns: rng.one_of(&[0, 60_000, 5_000_000]),
            ..faults
        };
        faults.with_operations(rng)
    }

    /// The same of operations. They come last, so that what is drawn before does not depend on them.
    fn with_operations(self, rng: &mut Rng) -> Self {
        let mut often = || rng.one_of(&[0, 0, 1_000, 50_000, 400_000]);
        let faults = Self {
            ops_unqueued_ppm: often(),
            // Nothing long comes to its end when half of its pieces fail.
            ops_failed_ppm: often() / 4,
            ops_short_ppm: often(),
            streams_ended_ppm: often(),
            cancels_late_ppm: often(),
            lends_refused_ppm: often(),
            ..self
        };
        let mut lacks = || rng.below(4) == 0;
        Self {
            no_multishot_accept: lacks(),
            no_multishot_recv: lacks(),
            no_send_zc: lacks(),
            op_delay_max_ns: rng.one_of(&[0, 5_000, 300_000, 20_000_000]),
            ..faults
        }
    }
}
