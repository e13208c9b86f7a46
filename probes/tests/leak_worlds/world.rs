//! Virtual soaks: programs with and without leaks, as a heap sampler would have seen them. Only sampled
//! objects are simulated (a Poisson stream thinned by the weight), and those that die within
//! [`SHORT_NS`] only as counts, so that eight hours beside 200 MB of churn cost milliseconds.

use std::ops::Range;

use tailbeam_probes::record::heap::{
    Births, Census, Deaths, HeapSnapshot, OwnerEnd, Sample, SamplerFacts, age_bin, age_bin_from_ns,
};

pub(crate) const MINUTE_NS: u64 = 60_000_000_000;
pub(crate) const HOUR_NS: u64 = 60 * MINUTE_NS;
/// Objects that die younger are counts: below any age that the analysis calls old after an hour.
const SHORT_NS: u64 = 300_000_000_000;
/// Epochs of a snapshot at most.
const EPOCHS: u64 = 64;

/// splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }

    pub(crate) fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).expect("below a u32")
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 60.0 {
            return ns((mean + mean.sqrt() * self.normal() + 0.5).max(0.0));
        }
        let (mut count, mut product, end) = (0, self.unit(), (-mean).exp());
        while product > end {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

pub(crate) fn ns(x: f64) -> u64 {
    x as u64
}

/// How long objects live.
#[derive(Clone, Copy)]
pub(crate) enum Life {
    /// For ever.
    Leak,
    /// Exponential, mean in s.
    Steady(f64),
    /// Pareto with this exponent and mean in s.
    Pareto(f64, f64),
    /// Exactly, s.
    Fixed(f64),
    /// Uniform, s.
    Uniform(f64, f64),
}

impl Life {
    fn draw_ns(self, rng: &mut Rng) -> u64 {
        let seconds = match self {
            Self::Leak => return u64::MAX,
            Self::Steady(mean) => rng.exponential(mean),
            Self::Pareto(power, mean) => {
                mean * (power - 1.0) / power * rng.unit().powf(-1.0 / power)
            }
            Self::Fixed(life) => life,
            Self::Uniform(low, high) => low + (high - low) * rng.unit(),
        };
        ns((seconds * 1e9).min(1e18))
    }

    /// Share that lives longer than `seconds`.
    fn survives(self, seconds: f64) -> f64 {
        match self {
            Self::Leak => 1.0,
            Self::Steady(mean) => (-seconds / mean).exp(),
            Self::Pareto(power, mean) => {
                (mean * (power - 1.0) / power / seconds.max(1e-9)).powf(power).min(1.0)
            }
            Self::Fixed(life) => f64::from(u8::from(seconds < life)),
            Self::Uniform(low, high) => ((high - seconds) / (high - low)).clamp(0.0, 1.0),
        }
    }
}

/// Whose objects a stream makes.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    One(u32),
    Any(u32),
}

/// A stream of births at a site.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) site: u32,
    pub(crate) size: u64,
    pub(crate) who: Who,
    pub(crate) life: Life,
    /// Bytes per hour, from and until (ns).
    pub(crate) rate: f64,
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
}

struct Object {
    sample: Sample,
    dies_ns: u64,
}

/// A virtual soak.
pub(crate) struct World {
    pub(crate) mean: f64,
    rng: Rng,
    length_ns: u64,
    objects: Vec<Object>,
    /// Site, minute of birth, bin, count: objects that died young.
    short: Vec<(u32, u64, u8, u64)>,
    /// Growing buffers: site, owner, born, bytes per hour, until.
    vecs: Vec<(u32, u32, u64, f64, u64)>,
    ended: Vec<OwnerEnd>,
    /// Live bytes that are not objects of the list: by minute.
    base: Vec<f64>,
    held_per_hour: f64,
    held_noise: Vec<f64>,
}

impl World {
    pub(crate) fn new(seed: u64, mean: f64, hours: u64) -> Self {
        let minutes = usize::try_from(hours * 60 + 1).expect("short");
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let held_noise = (0..minutes).map(|_| rng.normal() * 2e5).collect();
        Self {
            mean,
            rng,
            length_ns: hours * HOUR_NS,
            objects: Vec::new(),
            short: Vec::new(),
            vecs: Vec::new(),
            ended: Vec::new(),
            base: vec![0.0; minutes],
            held_per_hour: 0.0,
            held_noise,
        }
    }

    pub(crate) fn weight(&self, size: u64) -> f64 {
        size as f64 / (1.0 - (-(size as f64 + 1.0) / self.mean).exp())
    }

    pub(crate) fn hours(&self) -> u64 {
        self.length_ns / HOUR_NS
    }

    fn push(&mut self, stream: &Stream, born_ns: u64, dies_ns: u64) {
        let owner = match stream.who {
            Who::One(owner) => owner,
            Who::Any(owners) => 1 + self.rng.below(owners),
        };
        let sample = Sample {
            site: stream.site,
            owner,
            core: u16::try_from(owner % 4).expect("small"),
            size: stream.size,
            weight: self.weight(stream.size),
            born_ns,
            grown_ns: born_ns,
            ..Sample::default()
        };
        self.objects.push(Object { sample, dies_ns });
    }

    /// Adds a stream of births of constant rate.
    pub(crate) fn stream(&mut self, stream: Stream) {
        let long = stream.life.survives(SHORT_NS as f64 / 1e9);
        let weight = self.weight(stream.size);
        let per_ns = stream.rate / weight / HOUR_NS as f64;
        self.young(&stream, per_ns);
        let until = stream.until_ns.min(self.length_ns);
        let mut at = stream.from_ns as f64;
        loop {
            at += self.rng.exponential(1.0 / (per_ns * long).max(1e-30));
            if at >= until as f64 {
                break;
            }
            let life = loop {
                let life = stream.life.draw_ns(&mut self.rng);
                if life >= SHORT_NS {
                    break life;
                }
            };
            self.push(&stream, ns(at), ns(at).saturating_add(life));
        }
    }

    /// Counts of objects that die young, by minute and bin.
    fn young(&mut self, stream: &Stream, per_ns: f64) {
        // Three octaves in one: none of these ages is old after an hour.
        let last = age_bin(SHORT_NS);
        let shares: Vec<(usize, f64)> = (0..=last)
            .step_by(12)
            .map(|bin| {
                let to = age_bin_from_ns(bin + 12).min(SHORT_NS as f64) / 1e9;
                let from = stream.life.survives(age_bin_from_ns(bin) / 1e9);
                (bin, from - stream.life.survives(to))
            })
            .collect();
        let until = stream.until_ns.min(self.length_ns);
        for minute in stream.from_ns / MINUTE_NS..until / MINUTE_NS {
            for &(bin, share) in shares.iter().filter(|s| s.1 > 0.0) {
                let count = self.rng.poisson(per_ns * MINUTE_NS as f64 * share);
                if count > 0 {
                    let bin = u8::try_from(bin).expect("96 bins");
                    self.short.push((stream.site, minute, bin, count));
                }
            }
        }
    }

    /// Steady churn of `bytes` live, exponential lifetimes of 60 s, by any of 1000 owners.
    pub(crate) fn churn(&mut self, site: u32, bytes: f64) {
        self.churn_of(site, bytes, Life::Steady(60.0));
    }

    pub(crate) fn churn_of(&mut self, site: u32, bytes: f64, life: Life) {
        self.stream(Stream {
            site,
            size: 256,
            who: Who::Any(1_000),
            life,
            rate: bytes * 60.0,
            from_ns: 0,
            until_ns: u64::MAX,
        });
        // The exact census sees the objects that are counts here: steady, with the noise of 256-byte objects.
        for minute in 0..self.base.len() {
            self.base[minute] += (bytes * 256.0).sqrt() * self.rng.normal();
        }
    }

    pub(crate) fn leak(&mut self, site: u32, who: Who, rate: f64, during_ns: Range<u64>) {
        let (from_ns, until_ns) = (during_ns.start, during_ns.end);
        self.stream(Stream { site, size: 96, who, life: Life::Leak, rate, from_ns, until_ns });
    }

    /// A cache of `bytes` that fills in `fill_ns` and replaces what expires.
    pub(crate) fn cache(&mut self, site: u32, bytes: f64, fill_ns: u64, life: Life) {
        let stream = Stream {
            site,
            size: 4_096,
            who: Who::Any(1_000),
            life,
            rate: 0.0,
            from_ns: 0,
            until_ns: u64::MAX,
        };
        for _ in 0..self.rng.poisson(bytes / self.weight(4_096)) {
            let mut at = ns(self.rng.unit() * fill_ns as f64);
            while at < self.length_ns {
                let dies = at.saturating_add(life.draw_ns(&mut self.rng));
                self.push(&stream, at, dies);
                at = dies;
            }
        }
    }

    /// Structures of `bytes` that fill with a time constant and stay; one object per owner if told so.
    pub(crate) fn fill(&mut self, site: u32, bytes: f64, constant_ns: u64, owners: Option<u32>) {
        let size = owners.map_or(512, |n| ns(bytes / f64::from(n)));
        let probability = size as f64 / self.weight(size);
        let count = owners.unwrap_or_else(|| u32::try_from(ns(bytes / size as f64)).expect("few"));
        for owner in 0..count {
            if self.rng.unit() < probability {
                let at = ns(self.rng.exponential(constant_ns as f64));
                let who = if owners.is_some() { Who::One(1 + owner) } else { Who::Any(1_000) };
                let stream = Stream {
                    site,
                    size,
                    who,
                    life: Life::Leak,
                    rate: 0.0,
                    from_ns: 0,
                    until_ns: 0,
                };
                if at < self.length_ns {
                    self.push(&stream, at, u64::MAX);
                }
            }
        }
    }

    /// A queue that now and then backs up: for 10 to 25 minutes at `rate`, then drains in order in 5.
    pub(crate) fn backlog(&mut self, site: u32, rate: f64) {
        let mut at = self.rng.exponential(HOUR_NS as f64);
        while at < self.length_ns as f64 {
            let builds = (10.0 + 15.0 * self.rng.unit()) * MINUTE_NS as f64;
            let (from, until) = (at, at + builds);
            let stream = Stream {
                site,
                size: 1_024,
                who: Who::Any(1_000),
                life: Life::Leak,
                rate,
                from_ns: ns(from),
                until_ns: ns(until),
            };
            let first = self.objects.len();
            self.stream(stream);
            for object in &mut self.objects[first..] {
                let place = (object.sample.born_ns as f64 - from) / builds;
                object.dies_ns = ns(until + place * 5.0 * MINUTE_NS as f64);
            }
            at = until + self.rng.exponential(1.5 * HOUR_NS as f64);
        }
    }

    /// Churn whose load rises from one to three times `bytes` over the soak.
    pub(crate) fn load(&mut self, site: u32, bytes: f64) {
        let parts = 20;
        for part in 0..parts {
            self.stream(Stream {
                site,
                size: 256,
                who: Who::Any(1_000),
                life: Life::Steady(60.0),
                rate: bytes * 60.0 * (1.0 + 2.0 * part as f64 / parts as f64),
                from_ns: self.length_ns / parts * part,
                until_ns: self.length_ns / parts * (part + 1),
            });
        }
        for minute in 0..self.base.len() {
            let share = minute as f64 / self.base.len() as f64;
            self.base[minute] += bytes * (1.0 + 2.0 * share);
        }
    }

    /// Owners that come, live ten minutes, and leave one object in `site` at `rate`.
    pub(crate) fn orphans(&mut self, site: u32, rate: f64) {
        let first = self.objects.len();
        self.leak(site, Who::One(0), rate, 0..u64::MAX);
        for (index, object) in self.objects[first..].iter_mut().enumerate() {
            let owner = 100_000 + u32::try_from(index).expect("few");
            object.sample.owner = owner;
            self.ended.push(OwnerEnd { owner, at_ns: object.sample.born_ns + 5 * MINUTE_NS });
        }
    }

    pub(crate) fn growing_vec(&mut self, site: u32, owner: u32, rate: f64, until_ns: u64) {
        self.vecs.push((site, owner, MINUTE_NS * 7, rate, until_ns));
    }

    pub(crate) fn fragments(&mut self, per_hour: f64) {
        self.held_per_hour = per_hour;
    }

    /// What the sampler knows at `at_ns`.
    pub(crate) fn snapshot(&self, at_ns: u64) -> HeapSnapshot {
        let mut epoch_ns = MINUTE_NS;
        while epoch_ns * EPOCHS < at_ns {
            epoch_ns *= 2;
        }
        let born: Vec<&Object> =
            self.objects.iter().filter(|o| o.sample.born_ns <= at_ns).collect();
        let mut samples: Vec<Sample> =
            born.iter().filter(|o| o.dies_ns > at_ns).map(|o| o.sample).collect();
        samples.extend(self.vecs.iter().filter_map(|vec| self.vec_at(vec, at_ns)));
        HeapSnapshot {
            at_ns,
            epoch_ns,
            sampler: SamplerFacts {
                mean_bytes: ns(self.mean),
                kept: 1.0,
                operations: Some(at_ns / 1_000_000),
                ..SamplerFacts::default()
            },
            births: self.births(&born, at_ns, epoch_ns),
            deaths: self.deaths(&born, at_ns, epoch_ns),
            census: self.census(at_ns),
            ended: self.ended.iter().copied().filter(|e| e.at_ns <= at_ns).collect(),
            samples,
            ..HeapSnapshot::default()
        }
    }

    fn births(&self, born: &[&Object], at_ns: u64, epoch_ns: u64) -> Vec<Births> {
        let mut cells = Cells::default();
        for object in born {
            let key = (object.sample.site, object.sample.born_ns / epoch_ns, 0);
            cells.add(key, 1, object.sample.weight);
        }
        for &(site, minute, _, count) in self.young_until(at_ns) {
            cells.add((site, minute * MINUTE_NS / epoch_ns, 0), count, self.mean * count as f64);
        }
        let born = |(site, epoch, _), (count, bytes)| Births { site, epoch, count, bytes };
        cells.map(born)
    }

    fn deaths(&self, born: &[&Object], at_ns: u64, epoch_ns: u64) -> Vec<Deaths> {
        let mut cells = Cells::default();
        for object in born.iter().filter(|o| o.dies_ns <= at_ns) {
            let age = object.dies_ns - object.sample.born_ns;
            let bin = u8::try_from(age_bin(age)).expect("96 bins");
            let key = (object.sample.site, object.sample.born_ns / epoch_ns, bin);
            cells.add(key, 1, object.sample.weight);
        }
        for &(site, minute, bin, count) in self.young_until(at_ns) {
            let key = (site, minute * MINUTE_NS / epoch_ns, bin);
            cells.add(key, count, self.mean * count as f64);
        }
        cells.map(|(site, epoch, age), (count, bytes)| Deaths { site, epoch, age, count, bytes })
    }

    fn young_until(&self, at_ns: u64) -> impl Iterator<Item = &(u32, u64, u8, u64)> {
        self.short.iter().filter(move |s| (s.1 + 1) * MINUTE_NS + SHORT_NS <= at_ns)
    }

    fn vec_at(&self, vec: &(u32, u32, u64, f64, u64), at_ns: u64) -> Option<Sample> {
        let &(site, owner, born_ns, rate, until_ns) = vec;
        let (mut size, mut grown, mut grown_ns) = (64u64, 0, born_ns);
        loop {
            let full_ns = born_ns + ns(size as f64 / rate * HOUR_NS as f64);
            if full_ns > at_ns.min(until_ns) {
                break;
            }
            (size, grown, grown_ns) = (size * 2, grown + 1, full_ns);
        }
        let weight = self.weight(size);
        (size as f64 > self.mean).then(|| Sample {
            site,
            owner,
            size,
            weight,
            born_ns,
            grown,
            grown_ns,
            ..Sample::default()
        })
    }

    /// Exact totals, as near as sampled objects and the noise of the rest make them, by minute.
    fn census(&self, at_ns: u64) -> Vec<Census> {
        let minutes = usize::try_from(at_ns / MINUTE_NS).expect("short").min(self.base.len() - 1);
        let mut change = vec![0.0; minutes + 2];
        let minute = |t: u64| usize::try_from(t / MINUTE_NS).map_or(minutes + 1, |m| m + 1);
        for object in &self.objects {
            // Churn is in the base; its long-lived part would only add the sampler's noise.
            let lasting = object.dies_ns == u64::MAX
                || object.dies_ns - object.sample.born_ns > 9 * MINUTE_NS;
            if lasting && minute(object.sample.born_ns) <= minutes {
                change[minute(object.sample.born_ns)] += object.sample.weight;
                change[minute(object.dies_ns).min(minutes + 1)] -= object.sample.weight;
            }
        }
        let mut live = 30e6;
        (0..=minutes)
            .map(|m| {
                live += change[m];
                let now_ns = m as u64 * MINUTE_NS;
                let vecs: u64 =
                    self.vecs.iter().filter_map(|v| self.vec_at(v, now_ns)).map(|s| s.size).sum();
                let bytes = live + self.base[m] + vecs as f64;
                let hours = m as f64 / 60.0;
                let held = bytes * 1.1 + 5e6 + self.held_per_hour * hours + self.held_noise[m];
                Census {
                    at_ns: now_ns,
                    live_bytes: ns(bytes.max(0.0)),
                    live_objects: ns(bytes.max(0.0) / 256.0),
                    held_bytes: Some(ns(held)),
                    rss_bytes: Some(ns(held + 8e6)),
                    operations: Some(now_ns / 1_000_000),
                }
            })
            .collect()
    }
}

/// Counts and bytes by site, epoch and bin.
#[derive(Default)]
struct Cells(std::collections::HashMap<(u32, u16, u8), (u64, f64)>);

impl Cells {
    fn add(&mut self, (site, epoch, bin): (u32, u64, u8), count: u64, bytes: f64) {
        let epoch = u16::try_from(epoch).expect("64 epochs");
        let cell = self.0.entry((site, epoch, bin)).or_default();
        cell.0 += count;
        cell.1 += bytes;
    }

    fn map<T>(self, make: impl Fn((u32, u16, u8), (u64, f64)) -> T) -> Vec<T> {
        self.0.into_iter().map(|(key, cell)| make(key, cell)).collect()
    }
}
