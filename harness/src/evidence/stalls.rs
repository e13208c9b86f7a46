//! Turns that kept a core from all others, as they stand in a window's record.

use serde::{Deserialize, Serialize};
use tailbeam_probes::record::program::ProgramStacks;

use super::records::Unknown;

/// The stalls of a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallsRecord {
    /// A turn of this length was one, ns; 0 when nobody looked.
    pub limit_ns: u64,
    /// Found in the window.
    pub found: u64,
    /// The longest of them.
    pub longest: Vec<StallRecord>,
    /// What their stacks refer to.
    pub stacks: ProgramStacks,
}

/// A stall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallRecord {
    /// CPU of the core.
    pub core: u64,
    /// Number of the agent in the plan; none for other agents, and for what is no agent's turn.
    pub agent: Option<u64>,
    /// The agent as the runtime names it; none for the shard itself, or a job.
    pub id: Option<String>,
    /// Its Rust type, or what ran in its place.
    pub type_name: String,
    /// The type of its messages.
    pub message: String,
    /// Since when the core had not looked up from its work, monotonic ns.
    pub since_ns: u64,
    /// How long that had lasted when it was looked at last, ns of the wall's clock: a quarter of the limit less than in
    /// the end, or as much as it had lasted when its window ended.
    pub lasted_ns: u64,
    /// Number of the stack in [`StallsRecord::stacks`].
    pub stack: Option<u32>,
    /// Why there is none.
    pub no_stack: Option<Unknown>,
}

impl StallRecord {
    /// Who it was, in words.
    #[must_use]
    pub fn owner(&self) -> String {
        let kind = match self.id {
            Some(_) => format!("{} on {}", short(&self.type_name), short(&self.message)),
            None => self.type_name.clone(),
        };
        match (self.agent, &self.id) {
            (Some(number), _) => format!("agent {number} ({kind})"),
            (None, Some(id)) => format!("agent {id}, which is not of the plan ({kind})"),
            (None, None) => kind,
        }
    }
}

/// A type without the path of its module.
fn short(name: &str) -> &str {
    let outer = name.find('<').unwrap_or(name.len());
    name[..outer].rfind("::").map_or(name, |at| &name[at + 2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named_as_far_as_it_is_known() {
        let mut stall = StallRecord {
            core: 1,
            agent: Some(17),
            id: Some("3.17".to_owned()),
            type_name: "a::b::Asker<c::Kind>".to_owned(),
            message: "a::Message".to_owned(),
            since_ns: 0,
            lasted_ns: 1,
            stack: None,
            no_stack: None,
        };
        assert_eq!(stall.owner(), "agent 17 (Asker<c::Kind> on Message)");
        stall.agent = None;
        assert!(stall.owner().starts_with("agent 3.17, which"), "{}", stall.owner());
        (stall.id, stall.type_name) = (None, "the shard itself, or a job".to_owned());
        assert_eq!(stall.owner(), "the shard itself, or a job");
    }
}
