//! KServe's inference protocol, version 2: requests whose tensors can stand behind each other, and the answer shared out again.
//!
//! Source: <https://github.com/kserve/open-inference-protocol>, `inference_rest.md`. Tensors in binary parts are no JSON, and are not
//! batched.

use crate::batch::kind::NoBatch;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What requests must have in common to be one: everything but their ids and the rows of their tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature(String);

/// An inference request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InferRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
    inputs: Vec<Tensor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outputs: Option<Box<RawValue>>,
}

/// The answer to one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InferResponse {
    model_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
    outputs: Vec<Tensor>,
}

/// A tensor, its data flat or as nested lists of its rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
    data: Vec<Box<RawValue>>,
}

impl Tensor {
    /// Entries of `data` for each row, if they are equally many.
    fn per_row(&self) -> Option<usize> {
        let rows = self.shape.first().copied().filter(|&rows| rows > 0)?;
        let elements =
            self.shape[1..].iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
        let per_row = self.data.len() / rows;
        (self.data.len().is_multiple_of(rows) && (per_row == elements || per_row == 1)).then_some(per_row)
    }

    /// With other rows of the same kind.
    fn with(&self, rows: usize, data: Vec<Box<RawValue>>) -> Self {
        let shape = std::iter::once(rows).chain(self.shape[1..].iter().copied()).collect();
        let Self { name, datatype, parameters, .. } = self.clone();
        Self { name, shape, datatype, parameters, data }
    }
}

fn text(raw: Option<&RawValue>) -> &str {
    raw.map_or("", RawValue::get)
}

impl InferRequest {
    /// Rows of its tensors; `None` if they have not equally many, or their data are not as their shapes say.
    pub(super) fn rows(&self) -> Option<usize> {
        let rows = self.inputs.first()?.shape.first().copied()?;
        let whole = |input: &Tensor| input.shape.first() == Some(&rows) && input.per_row().is_some();
        self.inputs.iter().all(whole).then_some(rows)
    }

    pub(super) fn signature(&self) -> Option<Signature> {
        let mut common = format!("{}\n{}", text(self.parameters.as_deref()), text(self.outputs.as_deref()));
        for input in &self.inputs {
            let Tensor { name, shape, datatype, parameters, .. } = input;
            let (parameters, per_row) = (text(parameters.as_deref()), input.per_row()?);
            common += &format!("\n{name:?} {datatype:?} {:?} {per_row} {parameters}", &shape[1..]);
        }
        Some(Signature(common))
    }
}

/// One request with the rows of all, which have one signature.
pub(super) fn merge(requests: &[&InferRequest]) -> String {
    let Some(first) = requests.first() else { return String::new() };
    let input = |at: usize| {
        let theirs = requests.iter().filter_map(|request| request.inputs.get(at));
        let rows = theirs.clone().filter_map(|input| input.shape.first()).sum();
        first.inputs[at].with(rows, theirs.flat_map(|input| input.data.clone()).collect())
    };
    let inputs = (0..first.inputs.len()).map(input).collect();
    let InferRequest { parameters, outputs, .. } = (*first).clone();
    let merged = InferRequest { id: None, parameters, inputs, outputs };
    serde_json::to_string(&merged).unwrap_or_default()
}

/// The answer's rows, to each request its own, with its id.
///
/// # Errors
/// [`NoBatch`] if a tensor of the answer has not a row for each row of the batch.
pub(super) fn split(requests: &[(&InferRequest, usize)], answer: &[u8]) -> Result<Vec<String>, NoBatch> {
    let answer: InferResponse = serde_json::from_slice(answer)
        .map_err(|error| NoBatch(format!("the answer to a batch is no inference response: {error}")))?;
    let all: usize = requests.iter().map(|&(_, rows)| rows).sum();
    let mut per_row = Vec::with_capacity(answer.outputs.len());
    for output in &answer.outputs {
        let entries = output.per_row().filter(|_| output.shape.first() == Some(&all));
        per_row.push(entries.ok_or_else(|| {
            let Tensor { name, shape, .. } = output;
            NoBatch(format!(
                "output {name:?} of a batch of {all} rows has the shape {shape:?}, not {all} rows"
            ))
        })?);
    }
    let mut begin = 0;
    let mut parts = Vec::with_capacity(requests.len());
    for &(request, rows) in requests {
        let part = |(output, &entries): (&Tensor, &usize)| {
            output.with(rows, output.data[begin * entries..(begin + rows) * entries].to_vec())
        };
        let outputs = answer.outputs.iter().zip(&per_row).map(part).collect();
        let part = InferResponse { id: request.id.clone(), outputs, ..answer.clone() };
        parts.push(serde_json::to_string(&part).unwrap_or_default());
        begin += rows;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(id: &str, shape: &[usize], data: Value) -> InferRequest {
        let input = json!({"name": "x", "shape": shape, "datatype": "FP32", "data": data});
        serde_json::from_value(json!({"id": id, "inputs": [input]})).unwrap()
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rows_stand_behind_each_other_and_each_request_gets_its_own_back() {
        let (one, two) = (request("a", &[1, 2], json!([1, 2])), request("b", &[2, 2], json!([3, 4, 5, 6])));
        assert_eq!(one.signature(), two.signature());
        let merged = parsed(&merge(&[&one, &two]));
        assert_eq!(
            (&merged["inputs"][0]["shape"], &merged["inputs"][0]["data"]),
            (&json!([3, 2]), &json!([1, 2, 3, 4, 5, 6]))
        );
        assert!(merged.get("id").is_none());
        let answer = json!({"model_name": "m", "outputs": [{"name": "y", "shape": [3], "datatype": "INT64", "data": [7, 8, 9]}]});
        let parts = split(&[(&one, 1), (&two, 2)], answer.to_string().as_bytes()).unwrap();
        let parts: Vec<_> = parts.iter().map(|part| parsed(part)).collect();
        assert_eq!((&parts[0]["id"], &parts[0]["outputs"][0]["data"]), (&json!("a"), &json!([7])));
        assert_eq!(
            (&parts[1]["outputs"][0]["shape"], &parts[1]["outputs"][0]["data"]),
            (&json!([2]), &json!([8, 9]))
        );
    }

    #[test]
    fn nested_rows_are_batched_with_nested_ones() {
        let (nested, flat) = (request("a", &[1, 2], json!([[1, 2]])), request("b", &[1, 2], json!([1, 2])));
        assert_ne!(nested.signature(), flat.signature());
        assert_eq!(parsed(&merge(&[&nested, &nested]))["inputs"][0]["data"], json!([[1, 2], [1, 2]]));
    }

    #[test]
    fn tensors_of_other_shapes_are_not_batched_and_wrong_ones_not_at_all() {
        let narrow = request("a", &[1, 2], json!([1, 2]));
        assert_ne!(narrow.signature(), request("b", &[1, 3], json!([1, 2, 3])).signature());
        for (shape, data) in [
            (&[2, 2][..], json!([1, 2, 3])),
            (&[], json!([1])),
            (&[0], json!([])),
            (&[1, usize::MAX, 9], json!([1, 2])),
        ] {
            assert!(
                request("c", shape, data).rows().zip(request("c", shape, json!([])).signature()).is_none(),
                "{shape:?}"
            );
        }
        let answer = json!({"model_name": "m", "outputs": [{"name": "y", "shape": [1], "datatype": "INT64", "data": [7]}]});
        let error = split(&[(&narrow, 1), (&narrow, 1)], answer.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("not 2 rows"), "{error}");
    }
}
