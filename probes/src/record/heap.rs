//! What a heap sampler knew at one instant, as plain values: the contract between the collector,
//! which writes them into its state file, and the analysis, which reads nothing else.
//!
//! Instants are ns since the sampler started. Weights are Horvitz-Thompson: the sum of the weights of
//! the sampled objects of a set is an unbiased estimate of the bytes (or, divided by the size, of the
//! objects) of that set. An object of `size` bytes met a mean distance `mean` between samples with the
//! probability `1 - exp(-(size + 1) / mean)`; its weight is `size` over that probability, and over the
//! share that thinning kept. Weights are fixed at the birth of a sample, except for thinning.

/// Age bins: bin 0 holds ages below [`AGE_UNIT_NS`], then four to an octave.
pub const AGE_BINS: usize = 96;
/// Upper edge of age bin 0, ns.
pub const AGE_UNIT_NS: u64 = 16_000_000;
/// Births and deaths are kept by epoch of birth; when all are used, two become one.
pub const EPOCHS: usize = 64;
/// No owner was tagged.
pub const OWNER_NONE: u32 = 0;
/// Site 0 takes the stacks that found no room in the table.
pub const SITE_OTHER: u32 = 0;

/// Objects above this size are always sampled, as long as the mean is not above it too.
pub const LARGE: usize = 1 << 20;

/// Chance that an object was sampled at a mean distance of `mean` bytes whose largest size so far is
/// `extent`: a Poisson process over bytes, with one more unit per object so that an empty one counts.
#[must_use]
pub fn chance(extent: u64, mean: f32) -> f64 {
    let always = extent > LARGE as u64 && extent as f64 > f64::from(mean);
    let units = extent as f64 + 1.0;
    if mean <= 1.0 || always { 1.0 } else { -(-units / f64::from(mean)).exp_m1() }
}

/// Bytes that a sampled object of `size` bytes stands for (Horvitz and Thompson 1952).
#[must_use]
pub fn weight(size: u64, extent: u64, mean: f32) -> f64 {
    size as f64 / chance(extent, mean)
}

/// An estimate from sampled objects, with its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// Estimated bytes.
    pub bytes: f64,
    /// Lower end of the interval, bytes; not below what was seen.
    pub low: f64,
    /// Upper end, bytes.
    pub high: f64,
}

/// Estimates the live bytes of a set of objects from those of its objects that were sampled.
///
/// Objects are sampled independently, with chance `p = size / weight`; so the variance is estimated by
/// the sum of `weight^2 (1 - p)` (Saerndal, Swensson, Wretman 1992, 2.8), and the interval is the
/// normal one. Below about 30 samples it is too narrow on the right.
#[must_use]
pub fn estimate<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Estimate {
    let (mut bytes, mut variance, mut seen) = (0.0, 0.0, 0.0);
    for sample in samples {
        let size = sample.size as f64;
        bytes += sample.weight;
        variance += sample.weight * (sample.weight - size);
        seen += size;
    }
    let reach = 1.96 * f64::max(variance, 0.0).sqrt();
    Estimate { bytes, low: f64::max(bytes - reach, seen), high: bytes + reach }
}

/// Age bin of an age in ns. The lower edge of bin `k > 0` is `AGE_UNIT_NS * 2^((k - 1) / 4)`; the last
/// bin has no upper edge.
#[must_use]
pub fn age_bin(age_ns: u64) -> usize {
    if age_ns < AGE_UNIT_NS {
        return 0;
    }
    let octave = (age_ns / AGE_UNIT_NS).ilog2();
    // Quarter octaves by comparing with 2^(1/4), 2^(1/2), 2^(3/4) in 16-bit fixed point.
    let scaled = (u128::from(age_ns) << 16) / (u128::from(AGE_UNIT_NS) << octave);
    let quarter = [77_936u128, 92_682, 110_218].iter().filter(|&&edge| scaled >= edge).count();
    (1 + octave as usize * 4 + quarter).min(AGE_BINS - 1)
}

/// Lower edge of an age bin, ns.
#[must_use]
pub fn age_bin_from_ns(bin: usize) -> f64 {
    if bin == 0 { 0.0 } else { AGE_UNIT_NS as f64 * ((bin as f64 - 1.0) / 4.0).exp2() }
}

/// The state of a heap sampler at one instant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeapSnapshot {
    /// ns since the sampler started.
    pub at_ns: u64,
    /// `CLOCK_REALTIME` of the start, ns since 1970.
    pub started_unix_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Command line, for a title.
    pub command: String,
    /// How it sampled and what it lost.
    pub sampler: SamplerFacts,
    /// Length of a birth epoch, ns; epoch `k` covers `k * epoch_ns .. (k + 1) * epoch_ns`.
    pub epoch_ns: u64,
    /// Files mapped as code, to resolve frames.
    pub modules: Vec<Module>,
    /// Allocation sites, [`SITE_OTHER`] first.
    pub sites: Vec<Site>,
    /// Sampled objects that live.
    pub samples: Vec<Sample>,
    /// Sampled births by site and epoch, all of them, dead or alive. Sparse, in no order.
    pub births: Vec<Births>,
    /// Sampled deaths by site, epoch of birth and age. Sparse, in no order.
    pub deaths: Vec<Deaths>,
    /// Exact totals over time, oldest first.
    pub census: Vec<Census>,
    /// Exact totals by size class now.
    pub classes: Vec<ClassTotals>,
    /// Owners that ended, and when.
    pub ended: Vec<OwnerEnd>,
    /// Names of owners, where the program gave any.
    pub owner_names: Vec<(u32, String)>,
}

/// How a sampler worked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplerFacts {
    /// Mean distance between samples now, bytes; 1 in exact mode.
    pub mean_bytes: u64,
    /// The smallest and largest mean that was in force.
    pub mean_range: (u64, u64),
    /// Every object was recorded.
    pub exact: bool,
    /// Share of sampled objects that thinning keeps now, 0..=1.
    pub kept: f64,
    /// Samples taken since the start.
    pub taken: u64,
    /// Samples that were lost, by reason; a loss biases estimates downward and is printed.
    pub lost: Vec<(String, u64)>,
    /// Stacks that ended early for want of frame pointers or tables.
    pub truncated_stacks: u64,
    /// Allocations and frees since the start, exact.
    pub allocs: u64,
    /// Frees since the start, exact.
    pub frees: u64,
    /// Operations of the program, where it counted any (requests, messages).
    pub operations: Option<u64>,
    /// Time spent in the sampler's slow paths, ns.
    pub self_ns: u64,
    /// Bytes of the sampler's own state.
    pub state_bytes: u64,
}

/// A file whose code was running.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// Path as mapped.
    pub path: String,
    /// GNU build-id, empty when the file has none.
    pub build_id: Vec<u8>,
    /// Load bias: address in memory less address in the file.
    pub bias: u64,
    /// Mapped range of its code.
    pub range: (u64, u64),
}

/// One return address, innermost first in a [`Site`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Index into [`HeapSnapshot::modules`]; `u32::MAX` when no module holds the address.
    pub module: u32,
    /// Address less the module's bias; the absolute address without a module.
    pub address: u64,
}

/// A stack that allocated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Number, stable within a run.
    pub id: u32,
    /// Frames, innermost first.
    pub frames: Vec<Frame>,
    /// The walk ended early.
    pub truncated: bool,
}

/// A sampled object that lives.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Site of its birth.
    pub site: u32,
    /// Owner at its birth, [`OWNER_NONE`] if none was tagged.
    pub owner: u32,
    /// Core of its birth.
    pub core: u16,
    /// Requested bytes now.
    pub size: u64,
    /// Weight in bytes, thinning included.
    pub weight: f64,
    /// Birth of the first block of its realloc chain, ns.
    pub born_ns: u64,
    /// Reallocations of the chain.
    pub grown: u32,
    /// The last reallocation of the chain, ns; `born_ns` when there was none. It tells a buffer that
    /// still grows from one that grew once and stayed.
    pub grown_ns: u64,
    /// Address, where it is known (exact mode).
    pub address: u64,
}

/// Sampled births of a site in an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Births {
    /// Site.
    pub site: u32,
    /// Epoch.
    pub epoch: u16,
    /// Sampled objects.
    pub count: u64,
    /// Sum of their weights, bytes.
    pub bytes: f64,
}

/// Sampled deaths of a site by epoch of birth and age at death.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Deaths {
    /// Site.
    pub site: u32,
    /// Epoch of birth.
    pub epoch: u16,
    /// [`age_bin`] of the age at death.
    pub age: u8,
    /// Sampled objects.
    pub count: u64,
    /// Sum of their weights, bytes.
    pub bytes: f64,
}

/// Exact totals at an instant.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Census {
    /// ns since the start.
    pub at_ns: u64,
    /// Requested bytes that live.
    pub live_bytes: u64,
    /// Objects that live.
    pub live_objects: u64,
    /// Bytes the allocator holds from the system, `None` when it cannot say.
    pub held_bytes: Option<u64>,
    /// Resident set, `None` when it was not read.
    pub rss_bytes: Option<u64>,
    /// Operations of the program up to here, where it counts any.
    pub operations: Option<u64>,
}

/// Exact totals of a size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassTotals {
    /// Largest request of the class, bytes.
    pub up_to: u64,
    /// Requested bytes that live.
    pub live_bytes: u64,
    /// Objects that live.
    pub live_objects: u64,
    /// Bytes allocated since the start.
    pub allocated_bytes: u64,
}

/// An owner's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnerEnd {
    /// Owner.
    pub owner: u32,
    /// ns since the start.
    pub at_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_lies_between_the_edges_of_its_bin() {
        for age in (0..64).map(|bit| 1u64 << bit).flat_map(|n| [n - 1, n, n + n / 3]) {
            let bin = age_bin(age);
            assert!(age_bin_from_ns(bin) <= age as f64 * 1.0001, "{age} in {bin}");
            if bin + 1 < AGE_BINS {
                assert!((age as f64) < age_bin_from_ns(bin + 1) * 1.0001, "{age} in {bin}");
            }
        }
    }
}
