//! Images that functions use: how much of them one function may have on a GPU, each image counted once however many of its
//! processes use it.
//!
//! What is used is kept, in files and, once loaded, on the GPU. Without a limit one function could leave no room for the code of
//! all others.

use crate::server::size::ByteSize;
use crate::worker::gpu::images::ImageHash;
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Why a function may use no more images.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "function {function} wants an image of {wanted} beside the {used} that its processes use on this GPU, and may use {limit}: \
     raise image_limit in [functions.{function}] or [defaults]"
)]
pub(crate) struct ImageRefusal {
    function: String,
    wanted: ByteSize,
    used: ByteSize,
    limit: ByteSize,
}

#[derive(Debug, Default)]
struct Used {
    /// Of all its images.
    bytes: u64,
    /// How many clients' numbers stand for each.
    images: HashMap<ImageHash, usize>,
}

/// What functions use.
#[derive(Debug, Default)]
pub(crate) struct ImageQuota {
    functions: Mutex<HashMap<String, Used>>,
}

/// A client's use of an image, over on drop.
#[derive(Debug)]
pub(crate) struct ImageUse {
    quota: Arc<ImageQuota>,
    function: String,
    hash: ImageHash,
    bytes: u64,
}

impl ImageQuota {
    /// A client of a function that may have so much begins to use an image.
    ///
    /// # Errors
    /// [`ImageRefusal`].
    pub(crate) fn begin(
        self: &Arc<Self>,
        function: &str,
        limit_bytes: u64,
        (hash, bytes): (ImageHash, u64),
    ) -> Result<ImageUse, ImageRefusal> {
        let mut functions = lock(&self.functions);
        let used = functions.get(function);
        if used.is_none_or(|used| !used.images.contains_key(&hash)) {
            let before = used.map_or(0, |used| used.bytes);
            if before.checked_add(bytes).is_none_or(|sum| sum > limit_bytes) {
                let (wanted, used, limit) = (ByteSize(bytes), ByteSize(before), ByteSize(limit_bytes));
                return Err(ImageRefusal { function: function.to_owned(), wanted, used, limit });
            }
        }
        let used = functions.entry(function.to_owned()).or_default();
        let users = used.images.entry(hash).or_default();
        if *users == 0 {
            used.bytes += bytes;
        }
        *users += 1;
        Ok(ImageUse { quota: self.clone(), function: function.to_owned(), hash, bytes })
    }

    /// Bytes that a function uses.
    pub(crate) fn used_bytes(&self, function: &str) -> u64 {
        lock(&self.functions).get(function).map_or(0, |used| used.bytes)
    }
}

impl Drop for ImageUse {
    fn drop(&mut self) {
        let mut functions = lock(&self.quota.functions);
        let Some(used) = functions.get_mut(&self.function) else { return };
        let Some(users) = used.images.get_mut(&self.hash) else { return };
        *users -= 1;
        if *users == 0 {
            used.images.remove(&self.hash);
            used.bytes -= self.bytes;
        }
        if used.images.is_empty() {
            functions.remove(&self.function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_uses_each_image_once_and_no_more_than_it_may() {
        let quota = Arc::new(ImageQuota::default());
        let begin = |function: &str, hash: u8, bytes| quota.begin(function, 10, ([hash; 32], bytes));
        let (first, second) = (begin("f", 1, 6).unwrap(), begin("f", 1, 6).unwrap());
        assert_eq!(quota.used_bytes("f"), 6);
        let refused = begin("f", 2, 5).unwrap_err().to_string();
        for word in ["function f", "5 B", "6 B", "10 B", "[functions.f]"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(begin("f", 2, u64::MAX).is_err(), "the sum overflows");
        let _other = begin("g", 2, 5).unwrap();
        drop(first);
        assert!(begin("f", 2, 5).is_err(), "it is still used");
        drop(second);
        begin("f", 2, 5).unwrap();
        assert_eq!(lock(&quota.functions).len(), 1, "what uses nothing is forgotten");
    }
}
