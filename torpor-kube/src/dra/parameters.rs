//! What a claim, or its class, may say of the function beside how much memory it has.

use crate::dra::quantity::{InvalidQuantity, bytes};
use serde::Deserialize;
use serde_json::Value;
use torpor_proto::control::admin::Terms;

/// Why parameters are none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// They are of another kind, or have unknown keys.
    #[error(
        "the parameters of the claim or its class are wrong: {0}; they have apiVersion: gpu.torpor.dev/v1, kind: FunctionParameters, and may have memoryLimit and sloMs"
    )]
    Wrong(String),
    /// The memory limit is none.
    #[error("memoryLimit: {0}")]
    MemoryLimit(#[from] InvalidQuantity),
}

/// `FunctionParameters`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FunctionParameters {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: Kind,
    memory_limit: Option<Amount>,
    slo_ms: Option<u32>,
}

#[derive(Debug, Deserialize)]
enum ApiVersion {
    #[serde(rename = "gpu.torpor.dev/v1")]
    V1,
}

#[derive(Debug, Deserialize)]
enum Kind {
    FunctionParameters,
}

/// YAML makes a number of an amount without a suffix.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Number(u64),
}

/// Reads parameters.
///
/// # Errors
/// [`ParametersError`].
pub fn read(parameters: &Value) -> Result<Terms, ParametersError> {
    let read = FunctionParameters::deserialize(parameters);
    let FunctionParameters { memory_limit, slo_ms, .. } =
        read.map_err(|error| ParametersError::Wrong(error.to_string()))?;
    let limit = memory_limit.map(|amount| match amount {
        Amount::Text(text) => bytes(&text),
        Amount::Number(number) => bytes(&number.to_string()),
    });
    Ok(Terms { memory_limit_bytes: limit.transpose()?, slo_ms, ..Terms::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameters(more: Value) -> Result<Terms, ParametersError> {
        let mut all = json!({"apiVersion": "gpu.torpor.dev/v1", "kind": "FunctionParameters"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(&all)
    }

    #[test]
    fn what_is_said_is_read() {
        let terms = |memory_limit_bytes, slo_ms| Ok(Terms { memory_limit_bytes, slo_ms, ..Terms::default() });
        assert_eq!(parameters(json!({})), terms(None, None));
        assert_eq!(parameters(json!({"memoryLimit": "2Gi", "sloMs": 200})), terms(Some(2 << 30), Some(200)));
        assert_eq!(parameters(json!({"memoryLimit": 4194304})), terms(Some(4 << 20), None));
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_name() {
        let said = parameters(json!({"sloMilliseconds": 5})).unwrap_err().to_string();
        assert!(said.contains("sloMilliseconds") && said.contains("sloMs"), "{said}");
        for wrong in [
            json!({"sloMs": -1}),
            json!({"memoryLimit": "2GiB"}),
            json!({"kind": "Pod"}),
            json!({"apiVersion": "v1"}),
        ] {
            parameters(wrong).unwrap_err();
        }
        for wrong in [json!(null), json!([]), json!({}), json!("text")] {
            read(&wrong).unwrap_err();
        }
    }
}
