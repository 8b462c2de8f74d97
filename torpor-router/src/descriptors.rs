//! Room for connections: each is a file descriptor, of which a process may have fewer than there are to be connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside clients' connections: those to processes, what these print, sockets and files.
const OTHERS: u64 = 512;

/// The limit is too low for what was asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "max_connections = {wanted} needs {needed} file descriptors, and this process may have {most}: raise its hard limit (`ulimit -Hn`, \
     LimitNOFILE of the unit), or lower max_connections in [server]"
)]
pub struct TooFew {
    wanted: usize,
    needed: u64,
    most: u64,
}

/// Raises the limit as far as it may be, and says how many connections there is room for: as many as are `asked` for, else
/// `usual` or what fits.
///
/// # Errors
/// [`TooFew`] for those that are asked for.
pub fn make_room(asked: Option<usize>, usual: usize) -> Result<usize, TooFew> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // A sandbox may forbid it.
        Err(_) => limit.current,
    };
    let room = fit(asked, usual, most.unwrap_or(u64::MAX))?;
    if room < asked.unwrap_or(usual) {
        tracing::warn!(
            "{room} connections at once: this process may have no more file descriptors (`ulimit -Hn`)"
        );
    }
    Ok(room)
}

fn fit(asked: Option<usize>, usual: usize, most: u64) -> Result<usize, TooFew> {
    let needed = asked.unwrap_or(usual) as u64 + OTHERS;
    match asked {
        Some(wanted) if needed > most => Err(TooFew { wanted, needed, most }),
        Some(wanted) => Ok(wanted),
        None if needed <= most => Ok(usual),
        // Half of what there is for the others, where that is very little.
        None => Ok(usize::try_from(most - OTHERS.min(most / 2)).unwrap_or(usual)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_fits_or_is_refused_with_words() {
        assert_eq!(fit(None, 10_000, 1 << 20).unwrap(), 10_000);
        assert_eq!(fit(None, 10_000, 4096).unwrap(), 3584);
        assert_eq!(fit(None, 10_000, 100).unwrap(), 50);
        assert_eq!(fit(Some(4000), 10_000, 4512).unwrap(), 4000);
        let error = fit(Some(5000), 10_000, 4096).unwrap_err().to_string();
        assert!(
            error.contains("max_connections = 5000 needs 5512") && error.contains("may have 4096"),
            "{error}"
        );
    }
}
