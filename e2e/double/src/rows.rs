//! The text of a long table of which little changes: all slots, as they are told again and again.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::http::pretty;

/// The rows that were rendered, and all of them as one JSON array.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Option<String>>,
    whole: Option<Arc<RawValue>>,
}

impl Rows {
    /// A row has changed.
    pub fn forget(&mut self, index: usize) {
        self.whole = None;
        if let Some(row) = self.rows.get_mut(index) {
            *row = None;
        }
    }

    /// The array of `count` rows, indented for a place this deep in the answer.
    ///
    /// # Errors
    /// A row makes no JSON.
    pub fn text<T: serde::Serialize>(
        &mut self,
        depth: usize,
        count: usize,
        row: impl Fn(usize) -> T,
    ) -> serde_json::Result<Arc<RawValue>> {
        if let Some(whole) = &self.whole {
            return Ok(whole.clone());
        }
        let line = format!("\n{}", "    ".repeat(depth + 1));
        self.rows.resize(count, None);
        let mut text = String::from("[");
        for (index, known) in self.rows.iter_mut().enumerate() {
            if known.is_none() {
                let fresh = String::from_utf8_lossy(&pretty(&row(index))?).replace('\n', &line);
                *known = Some(format!("{}{line}{fresh}", if index == 0 { "" } else { "," }));
            }
            text.push_str(known.as_deref().unwrap_or_default());
        }
        if count > 0 {
            text.push_str(&line[..line.len() - 4]);
        }
        text.push(']');
        let whole: Arc<RawValue> = RawValue::from_string(text)?.into();
        self.whole = Some(whole.clone());
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_text_is_that_of_the_whole_and_a_change_is_seen() {
        let mut table = vec![json!({"a": 1, "b": {}}), json!({"a": [1, 2]}), json!({})];
        let mut rows = Rows::default();
        let mut told = |table: &[Value], changed: usize| {
            rows.forget(changed);
            let text = rows.text(1, table.len(), |index| &table[index]).unwrap();
            String::from_utf8(pretty(&std::collections::BTreeMap::from([("rows", &*text)])).unwrap()).unwrap()
        };
        let whole = |table: &[Value]| String::from_utf8(pretty(&json!({"rows": table})).unwrap()).unwrap();
        assert_eq!(told(&table, 0), whole(&table));
        table[1] = json!({"a": 3});
        assert_eq!(told(&table, 1), whole(&table));
        assert_eq!(told(&[], 0), whole(&[]));
    }
}
