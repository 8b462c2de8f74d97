//! What is published is kept as the node is: when its health changes, and when somebody has removed or changed it.
//!
//! The kubelet removes what a driver published that has not been there for a while.

use crate::dra::api::{Api, ApiError};
use crate::dra::slice::Offer;
use crate::health::Health;
use k8s_openapi::api::resource::v1::Device;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Between two looks at what is published.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// As long as it is not published.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// What was published last.
#[derive(Debug)]
struct Published {
    devices: Vec<Device>,
    generation: i64,
}

/// Publishes for as long as the node is looked at.
pub async fn keep_published(api: Api, offer: Offer, mut health: watch::Receiver<Health>) {
    let (mut published, mut told) = (None, String::new());
    loop {
        let devices = offer.devices(&health.borrow_and_update());
        let wait = match publish(&api, &offer, devices, &mut published).await {
            Ok(()) => {
                told.clear();
                LOOK_EVERY
            }
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    tracing::warn!("{error}; trying again");
                    told = error;
                }
                TRY_EVERY
            }
        };
        // Time that is over is as good as something new.
        if let Ok(Err(_)) = timeout(wait, health.changed()).await {
            return;
        }
    }
}

async fn publish(
    api: &Api,
    offer: &Offer,
    devices: Vec<Device>,
    published: &mut Option<Published>,
) -> Result<(), ApiError> {
    let there = api.slice(&offer.slice_name()).await?.map(|slice| slice.spec.pool.generation);
    let last = published.as_ref();
    if last.is_some_and(|last| last.devices == devices && there == Some(last.generation)) {
        return Ok(());
    }
    // The scheduler believes the highest.
    let generation = 1 + there.max(last.map(|last| last.generation)).unwrap_or(0);
    let owner = api.owner(&offer.node).await?;
    let kept = api.publish(&offer.slice(devices.clone(), generation, owner)).await?;
    tracing::info!(generation, "published {} devices as {}", devices.len(), offer.slice_name());
    if published.is_none() && shared(&devices) && !shared(kept.spec.devices.as_deref().unwrap_or_default()) {
        tracing::warn!(
            "this cluster gives a device to one claim alone (DRAConsumableCapacity is off): with --shares N each GPU is good for N"
        );
    }
    *published = Some(Published { devices, generation });
    Ok(())
}

fn shared(devices: &[Device]) -> bool {
    devices.iter().any(|device| device.allow_multiple_allocations == Some(true))
}
