//! Words of the pages, and what they mean here.

/// A word and its meaning.
type Entry = (&'static str, &'static str);

/// Of a soak.
pub(super) const SOAK: [Entry; 19] = [
    (
        "Agent",
        "A unit with state and a mailbox that asks and answers; all of a run are live at once.",
    ),
    (
        "Availability",
        "Seconds in which 99 % of what ended was answered in time, of all in which requests were due.",
    ),
    ("Band", "Requests between two percentiles of system latency, taken together."),
    ("Core", "One CPU with one thread, which runs the turns of its agents one after the other."),
    ("Delivery", "Terminal replies within their deadline, of all requests that were not refused."),
    ("Gate", "A requirement that a run is judged by."),
    (
        "INCONCLUSIVE",
        "Neither passed nor failed: too few requests, something not measured, or a disturbance from outside. Never a pass.",
    ),
    (
        "Intended instant",
        "When a request was to be sent by its schedule. Latency begins there, so that waiting in front of a stalled system counts.",
    ),
    (
        "Leak",
        "A site whose objects outlive their kind and grow in number, shown with a bounded chance of a mistake.",
    ),
    ("Lateness", "From the intended instant to the send: how late the generator was."),
    (
        "Little's law",
        "Throughput times mean time open is the mean number outstanding. A ratio off 1 means that requests are miscounted.",
    ),
    ("Live bytes", "Allocated and not yet freed, by the allocator's own count."),
    ("p99", "Latency that 99 of 100 requests do not exceed. Percentiles are never averaged."),
    ("Resident", "Memory that the kernel has given the process (RSS)."),
    ("Stage", "A part of a request's way. The stages of a request add up to its latency."),
    ("Suspect", "A site that may leak and for which the run was too short to say."),
    (
        "System latency",
        "End to end less the planned delay of the responder: what the system added.",
    ),
    ("Turn", "One piece of work of one agent on its core; others wait until it ends."),
    ("Unknown", "Not measured, with its cause and what would change that. Never 0."),
];

/// Of a certificate.
pub(super) const CERTIFICATE: [Entry; 6] = [
    (
        "Certificate",
        "A signed statement of what a policy made of recorded runs and series of faults.",
    ),
    (
        "Evidence",
        "The files of the runs and series. Each is named by its SHA-256; every figure can be computed from them again.",
    ),
    (
        "Gate",
        "A requirement of the policy, judged on the run or series that the policy names for it.",
    ),
    (
        "INCONCLUSIVE",
        "A gate that was not measured, or on a run or series that is missing or too short. Never a pass.",
    ),
    ("Policy", "The requirements, and what the runs and series must be that they are judged on."),
    ("Series of faults", "Faults injected under load by `tailbeam chaos`, some times each."),
];
