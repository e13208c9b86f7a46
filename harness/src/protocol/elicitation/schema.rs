//! The agreed shape of an answer: a JSON Schema, compiled once and shared.
//!
//! A schema comes from another agent. Its patterns run on an engine whose time is linear in the text, no
//! reference leaves the document, and a definition that refers to itself is refused: a validator would
//! follow it until its stack ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;

/// A compiled JSON Schema, shared by all elicitations that use it.
#[derive(Debug, Clone)]
pub struct Schema(Arc<jsonschema::Validator>);

impl Schema {
    /// Compiles a schema. No reference is ever fetched.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        refuse_references(schema)?;
        jsonschema::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(schema)
            .map(|validator| Self(Arc::new(validator)))
            .map_err(|e| e.to_string())
    }

    pub(super) fn check(&self, data: &Value) -> Result<(), Refusal> {
        self.0.validate(data).map_err(|error| Refusal::Schema(error.to_string()))
    }
}

/// A reference may form a cycle that consumes no data (`{"$ref": "#"}`). Answers are small and flat, so
/// none is allowed rather than cycles being searched for.
fn refuse_references(schema: &Value) -> Result<(), String> {
    let mut waiting = vec![schema];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(map) => {
                if let Some(key) = map.keys().find(|key| REFERENCES.contains(&key.as_str())) {
                    return Err(format!("{key} is not allowed: write the shape out"));
                }
                waiting.extend(map.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    Ok(())
}

const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// Compiled schemas by the SHA-256 of their text. Bounded: the one that was compiled first goes first.
#[derive(Debug)]
pub struct SchemaCache {
    max: usize,
    known: HashMap<[u8; 32], Schema>,
    order: VecDeque<[u8; 32]>,
}

impl SchemaCache {
    /// A cache of at most `max` schemas (at least one).
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), known: HashMap::new(), order: VecDeque::new() }
    }

    /// The schema of a text; compiles it when it is not known. Costs one SHA-256 of the text.
    ///
    /// # Errors
    /// [`Refusal::BadSchema`].
    pub fn compiled(&mut self, text: &[u8]) -> Result<Schema, Refusal> {
        let digest: [u8; 32] = Sha256::digest(text).into();
        if let Some(schema) = self.known.get(&digest) {
            return Ok(schema.clone());
        }
        let value: Value =
            serde_json::from_slice(text).map_err(|error| Refusal::BadSchema(error.to_string()))?;
        let schema = Schema::compile(&value).map_err(Refusal::BadSchema)?;
        if self.order.len() == self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(digest);
        self.known.insert(digest, schema.clone());
        Ok(schema)
    }

    /// Schemas held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_could_run_away_is_refused() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"properties": {"a": {"$ref": "#/properties/a"}}}),
            json!({"allOf": [{"$dynamicRef": "#x"}]}),
            json!({"type": 5}),
            json!({"pattern": "(a)\\1"}),
        ] {
            assert!(Schema::compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_pattern_with_nested_repeats_takes_linear_time() {
        let schema = Schema::compile(&json!({"pattern": "^(a+)+$"})).unwrap();
        let text = "a".repeat(50_000) + "!";
        assert!(schema.check(&json!(text)).is_err(), "a backtracking engine would not come back");
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let mut cache = SchemaCache::new(2);
        for text in [r#"{"type":"object"}"#, r#"{"type":"array"}"#, r#"{"type":"object"}"#] {
            cache.compiled(text.as_bytes()).unwrap();
        }
        assert_eq!(cache.len(), 2);
        cache.compiled(br#"{"type":"string"}"#).unwrap();
        assert_eq!(cache.len(), 2);
        assert!(matches!(cache.compiled(b"{"), Err(Refusal::BadSchema(_))));
        assert_eq!(cache.len(), 2, "what does not compile takes no place");
    }
}
