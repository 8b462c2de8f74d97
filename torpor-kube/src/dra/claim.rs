//! A claim: what the kubelet calls it, and what it was allocated.

use crate::dra::DRIVER;
use crate::dra::parameters::{self, ParametersError};
use crate::dra::quantity::{InvalidQuantity, bytes};
use crate::protocol::dra::Claim;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult, ResourceClaim,
};
use torpor_proto::control::admin::Terms;
use torpor_proto::directory::check_function_name;

/// The capacity that a claim consumes.
pub const MEMORY: &str = "memory";

/// Why a claim cannot be prepared.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The kubelet names something else.
    #[error("{0:?} is no name of a claim")]
    Name(String),
    /// It is a new one of the same name.
    #[error("the claim {0} is another one now; the pod must be made again")]
    Another(String),
    /// The scheduler has not seen it, or has taken it back.
    #[error("the claim is not allocated")]
    NotAllocated,
    /// It has devices of other nodes.
    #[error("the claim was allocated devices of {0}, not of this node")]
    Elsewhere(String),
    /// It has several devices, or none, of this driver.
    #[error(
        "the claim was allocated {0} devices of gpu.torpor.dev, but a function has one GPU: ask for one in each claim"
    )]
    Count(usize),
    /// It says something that cannot be said.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// The API server says something that cannot be said.
    #[error("the claim's consumed memory: {0}")]
    Consumed(#[from] InvalidQuantity),
    /// It wants more than it was given.
    #[error(
        "memoryLimit is {limit} bytes, but the claim asks for {consumed} bytes of capacity; raise capacity.requests.memory"
    )]
    AboveConsumed {
        /// What the parameters say.
        limit: u64,
        /// What was allocated.
        consumed: u64,
    },
}

/// A claim as the kubelet names it, with names that lead nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    uid: String,
}

impl ClaimName {
    /// Checks the names.
    ///
    /// # Errors
    /// [`ClaimError::Name`].
    pub fn new(claim: &Claim) -> Result<Self, ClaimError> {
        for name in [&claim.namespace, &claim.name] {
            if !is_object_name(name) {
                return Err(ClaimError::Name(name.clone()));
            }
        }
        function_of(&claim.uid)?;
        let Claim { namespace, name, uid } = claim.clone();
        Ok(Self { namespace, name, uid })
    }

    /// What it was allocated, if this is the claim that the kubelet means.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn allocation(&self, claim: &ResourceClaim, node: &str) -> Result<Allocation, ClaimError> {
        if claim.metadata.uid.as_deref() != Some(&self.uid) {
            return Err(ClaimError::Another(format!("{}/{}", self.namespace, self.name)));
        }
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        Allocation::new(allocation.ok_or(ClaimError::NotAllocated)?, node)
    }
}

/// The function that a claim is.
///
/// # Errors
/// [`ClaimError::Name`]: the UID could lead out of a folder, or is too long.
pub fn function_of(uid: &str) -> Result<String, ClaimError> {
    let function = format!("{FUNCTION_PREFIX}{uid}");
    let plain = uid.chars().all(|character| character.is_ascii_alphanumeric() || character == '-');
    let ends_well = uid.ends_with(|last: char| last.is_ascii_alphanumeric());
    if plain && ends_well && check_function_name(&function).is_ok() {
        Ok(function)
    } else {
        Err(ClaimError::Name(uid.to_owned()))
    }
}

/// Before a claim's UID, in its function's name.
pub const FUNCTION_PREFIX: &str = "claim-";

/// Names as Kubernetes has them: DNS subdomains.
fn is_object_name(name: &str) -> bool {
    let part = |part: &str| {
        let inside = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
        };
        !part.is_empty() && part.chars().all(inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

/// What a claim was allocated of this driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// The request of the claim.
    pub request: String,
    /// The device.
    pub device: String,
    /// Which share of it.
    pub share_id: Option<String>,
    /// What the function is to be held to.
    pub terms: Terms,
}

impl Allocation {
    fn new(allocation: &AllocationResult, node: &str) -> Result<Self, ClaimError> {
        let devices = allocation.devices.clone().unwrap_or_default();
        let results = devices.results.unwrap_or_default();
        let ours: Vec<_> = results.iter().filter(|result| result.driver == DRIVER).collect();
        let [result] = ours[..] else { return Err(ClaimError::Count(ours.len())) };
        if result.pool != node {
            return Err(ClaimError::Elsewhere(result.pool.clone()));
        }
        let said = terms(&devices.config.unwrap_or_default(), &result.request)?;
        Ok(Self {
            request: result.request.clone(),
            device: result.device.clone(),
            share_id: result.share_id.clone(),
            terms: within(said, consumed(result)?)?,
        })
    }
}

/// The memory that was taken off the device's capacity, in bytes.
fn consumed(result: &DeviceRequestAllocationResult) -> Result<Option<u64>, ClaimError> {
    let memory = result.consumed_capacity.as_ref().and_then(|consumed| consumed.get(MEMORY));
    Ok(memory.map(|memory| bytes(&memory.0)).transpose()?)
}

/// What configuration says of a request: the class's first, then the claim's own in its place.
fn terms(config: &[DeviceAllocationConfiguration], request: &str) -> Result<Terms, ClaimError> {
    let mut terms = Terms::default();
    for from in ["FromClass", "FromClaim"] {
        for entry in config.iter().filter(|entry| entry.source == from && is_for(entry, request)) {
            let Some(opaque) = entry.opaque.as_ref().filter(|opaque| opaque.driver == DRIVER) else {
                continue;
            };
            let Terms { memory_limit_bytes, slo_ms, .. } = parameters::read(&opaque.parameters.0)?;
            terms.memory_limit_bytes = memory_limit_bytes.or(terms.memory_limit_bytes);
            terms.slo_ms = slo_ms.or(terms.slo_ms);
        }
    }
    Ok(terms)
}

/// Whether configuration is meant for a request: for all, for it, or for one of which it is an alternative (`main/alternative`).
fn is_for(entry: &DeviceAllocationConfiguration, request: &str) -> bool {
    let named = entry.requests.as_deref().unwrap_or_default();
    let main = request.split('/').next().unwrap_or_default();
    named.is_empty() || named.iter().any(|name| name == request || name == main)
}

/// The terms, of which the memory was taken off the device's capacity.
fn within(terms: Terms, consumed: Option<u64>) -> Result<Terms, ClaimError> {
    match (terms.memory_limit_bytes, consumed) {
        (Some(limit), Some(consumed)) if limit > consumed => {
            Err(ClaimError::AboveConsumed { limit, consumed })
        }
        (limit, consumed) => Ok(Terms { memory_limit_bytes: limit.or(consumed), ..terms }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const UID: &str = "0b5c3f0e-7e57-4d52-9d0a-0123456789ab";

    fn name(namespace: &str, name: &str, uid: &str) -> Result<ClaimName, ClaimError> {
        let (namespace, name, uid) = (namespace.to_owned(), name.to_owned(), uid.to_owned());
        ClaimName::new(&Claim { namespace, uid, name })
    }

    fn allocated(results: Value, config: Value) -> Result<Allocation, ClaimError> {
        let status = json!({"allocation": {"devices": {"results": results, "config": config}}});
        let claim = json!({"metadata": {"uid": UID}, "spec": {}, "status": status});
        let claim = serde_json::from_value(claim).unwrap();
        name("team", "one", UID).unwrap().allocation(&claim, "node-1")
    }

    fn result(more: Value) -> Value {
        let mut result = json!({"request": "gpu", "driver": DRIVER, "pool": "node-1", "device": "gpu-0"});
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        result
    }

    fn config(source: &str, requests: Value, parameters: Value) -> Value {
        let mut all = json!({"apiVersion": "gpu.torpor.dev/v1", "kind": "FunctionParameters"});
        all.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
        json!({"source": source, "requests": requests, "opaque": {"driver": DRIVER, "parameters": all}})
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        name("team", "a.b-1", UID).unwrap();
        assert_eq!(function_of(UID).unwrap(), format!("claim-{UID}"));
        let longest = "a".repeat(254);
        for wrong in ["", ".", "..", "a/b", "a?x", "../nodes", "A", "a..b", "-a", "a-", &longest] {
            assert_eq!(name(wrong, "one", UID), Err(ClaimError::Name(wrong.to_owned())));
            assert_eq!(name("team", wrong, UID), Err(ClaimError::Name(wrong.to_owned())));
        }
        let longest = "a".repeat(58);
        for wrong in ["", "..", "../x", "a/b", "a.json", "a-", "ü", &longest] {
            assert_eq!(name("team", "one", wrong), Err(ClaimError::Name(wrong.to_owned())));
        }
    }

    #[test]
    fn the_memory_that_is_taken_off_the_capacity_is_the_limit() {
        let consumed = result(json!({"consumedCapacity": {"memory": "2Gi"}, "shareID": "s"}));
        let allocation = allocated(json!([consumed]), json!([])).unwrap();
        assert_eq!(allocation.terms, Terms { memory_limit_bytes: Some(2 << 30), ..Terms::default() });
        assert_eq!((&*allocation.device, allocation.share_id.as_deref()), ("gpu-0", Some("s")));
        let more = allocated(
            json!([consumed]),
            json!([config("FromClaim", json!([]), json!({"memoryLimit": "3Gi"}))]),
        );
        assert_eq!(more, Err(ClaimError::AboveConsumed { limit: 3 << 30, consumed: 2 << 30 }));
        let less = allocated(
            json!([consumed]),
            json!([config("FromClaim", json!([]), json!({"memoryLimit": "1Gi"}))]),
        );
        assert_eq!(less.unwrap().terms.memory_limit_bytes, Some(1 << 30));
    }

    #[test]
    fn what_the_claim_says_stands_in_the_place_of_what_its_class_says() {
        let class = config("FromClass", json!(null), json!({"memoryLimit": "1Gi", "sloMs": 100}));
        let own = config("FromClaim", json!(["gpu"]), json!({"sloMs": 200}));
        let others = config("FromClaim", json!(["other"]), json!({"sloMs": 300}));
        let foreign =
            json!({"source": "FromClaim", "opaque": {"driver": "gpu.example.com", "parameters": {"x": 1}}});
        let allocation = allocated(json!([result(json!({}))]), json!([own, others, foreign, class])).unwrap();
        assert_eq!(
            allocation.terms,
            Terms { memory_limit_bytes: Some(1 << 30), slo_ms: Some(200), ..Terms::default() }
        );
        let alternative = result(json!({"request": "gpu/small"}));
        assert_eq!(allocated(json!([alternative]), json!([own])).unwrap().terms.slo_ms, Some(200));
    }

    #[test]
    fn what_is_not_this_node_s_one_device_is_refused() {
        let (mine, foreign) = (result(json!({})), result(json!({"driver": "gpu.example.com"})));
        allocated(json!([foreign, mine]), json!([])).unwrap();
        assert_eq!(allocated(json!([foreign]), json!([])), Err(ClaimError::Count(0)));
        assert_eq!(allocated(json!([mine, mine]), json!([])), Err(ClaimError::Count(2)));
        let elsewhere = result(json!({"pool": "node-2"}));
        assert_eq!(allocated(json!([elsewhere]), json!([])), Err(ClaimError::Elsewhere("node-2".to_owned())));
        let consumed = result(json!({"consumedCapacity": {"memory": "-1"}}));
        assert!(matches!(allocated(json!([consumed]), json!([])), Err(ClaimError::Consumed(_))));
    }

    #[test]
    fn a_new_claim_of_the_same_name_is_another() {
        let new: ResourceClaim =
            serde_json::from_value(json!({"metadata": {"uid": "new"}, "spec": {}})).unwrap();
        let asked = name("team", "one", UID).unwrap();
        assert_eq!(asked.allocation(&new, "n"), Err(ClaimError::Another("team/one".to_owned())));
        let waiting: ResourceClaim =
            serde_json::from_value(json!({"metadata": {"uid": UID}, "spec": {}})).unwrap();
        assert_eq!(asked.allocation(&waiting, "n"), Err(ClaimError::NotAllocated));
    }
}
