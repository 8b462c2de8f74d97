//! A container's image: there, or pulled.

use crate::engine::error::{EngineError, is_missing, whole};
use crate::logs::Logs;
use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;

/// Makes sure that an image is on the machine. Gives the user that its programs are.
///
/// # Errors
/// [`EngineError`].
pub(super) async fn ensure(
    docker: &Docker,
    address: &str,
    image: &str,
    logs: &Logs,
) -> Result<String, EngineError> {
    let failed = |error| EngineError::of(address, "look for the image", &error);
    let there = match docker.inspect_image(image).await {
        Err(error) if is_missing(&error) => {
            logs.push(format!("torpor: {image} is not on this machine: it is pulled"));
            let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
            let pulled = docker.create_image(Some(options), None, None).try_for_each(async |_| Ok(())).await;
            pulled.map_err(|error| EngineError::NoImage { image: image.to_owned(), error: whole(&error) })?;
            docker.inspect_image(image).await.map_err(failed)?
        }
        there => there.map_err(failed)?,
    };
    Ok(there.config.and_then(|config| config.user).unwrap_or_default())
}

/// An engine that is asked for an image without a tag pulls those of all tags.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn one_image_is_pulled_and_not_those_of_all_tags() {
        for (image, pulled) in [
            ("python", "python:latest"),
            ("python:3.12", "python:3.12"),
            ("box:5000/python", "box:5000/python:latest"),
            ("box:5000/python@sha256:00", "box:5000/python@sha256:00"),
        ] {
            assert_eq!(with_tag(image), pulled);
        }
    }
}
