//! HTTP basic authentication (RFC 7617) with bcrypt hashes.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use tokio::{sync::Semaphore, time::timeout};

/// Highest accepted bcrypt cost; verification then takes some seconds.
const MAX_COST: u32 = 16;
/// Lowest bcrypt cost (the library's `MIN_COST`); a lower one never verifies.
const MIN_COST: u32 = 4;
/// Longest time that a password waits for its verification to start.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a hash cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashFault {
    /// It is not a bcrypt hash.
    Malformed,
    /// Its cost is too high; verification would take too long.
    Costly(u32),
}

/// The result of an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The credentials are valid.
    Granted,
    /// The credentials are missing or invalid.
    Denied,
    /// The verification did not start in time.
    Busy,
}

/// The users that may access the pages.
#[derive(Debug)]
pub(crate) struct Users {
    hashes: HashMap<String, String>,
    /// Verified against for an unknown name, so that the response time does not reveal which names exist.
    decoy: String,
    /// Hashes of verified credentials, because a bcrypt verification takes about 0.1 s. Bounded: only credentials of
    /// the file get in.
    verified: Arc<Mutex<HashSet<u64>>>,
    hasher: RandomState,
    /// Allows one verification at a time, so that guessing uses at most one CPU. The permit belongs to the
    /// verification, because the client may disconnect before it finishes.
    permit: Arc<Semaphore>,
    /// Longest wait for the permit.
    timeout: Duration,
}

impl Users {
    /// Checks the bcrypt hashes of the users. Returns the first user whose hash cannot be used.
    ///
    /// The keys are names, the values hashes.
    pub(crate) fn new(hashes: HashMap<String, String>) -> Result<Self, (String, HashFault)> {
        for (user, hash) in &hashes {
            if let Some(fault) = fault_of(hash) {
                return Err((user.clone(), fault));
            }
        }
        let decoy = hashes.values().next().cloned().unwrap_or_default();
        let permit = Arc::new(Semaphore::new(1));
        let (verified, hasher) = (Arc::default(), RandomState::new());
        Ok(Self { hashes, decoy, verified, hasher, permit, timeout: TIMEOUT })
    }

    /// Verifies the header `Authorization`.
    pub(crate) async fn authenticate(&self, header: Option<&str>) -> Admission {
        let Some((user, password)) = header.and_then(credentials) else { return Admission::Denied };
        let key = self.hasher.hash_one((&user, &password));
        if self.verified.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Admission::Granted;
        }
        let known = self.hashes.get(&user);
        let hash = known.unwrap_or(&self.decoy).clone();
        let Ok(Ok(permit)) = timeout(self.timeout, Arc::clone(&self.permit).acquire_owned()).await else {
            return Admission::Busy;
        };
        let verification = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        if verification.await.unwrap_or(false) && known.is_some() {
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
            return Admission::Granted;
        }
        Admission::Denied
    }
}

/// Returns the fault of a hash. Parses it only, because a verification is slow by design.
fn fault_of(hash: &str) -> Option<HashFault> {
    match hash.parse::<bcrypt::HashParts>().map(|parts| parts.get_cost()) {
        Ok(MIN_COST..=MAX_COST) => None,
        Ok(cost) if cost > MAX_COST => Some(HashFault::Costly(cost)),
        Ok(_) | Err(_) => Some(HashFault::Malformed),
    }
}

/// Decodes the name and password of a `Basic` header.
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7617, section 2.
    const ALADDIN: &str = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";

    #[test]
    fn the_example_of_rfc_7617() {
        assert_eq!(credentials(ALADDIN), Some(("Aladdin".to_owned(), "open sesame".to_owned())));
        for header in ["", "Basic", "Bearer x", "Basic !!", "Basic Zm9v"] {
            assert_eq!(credentials(header), None, "{header}");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_accepted() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        for _ in 0..2 {
            assert_eq!(users.authenticate(Some(ALADDIN)).await, Admission::Granted);
            // Aladdin:wrong, and nobody:open sesame
            for header in ["Basic QWxhZGRpbjp3cm9uZw==", "Basic bm9ib2R5Om9wZW4gc2VzYW1l"] {
                assert_eq!(users.authenticate(Some(header)).await, Admission::Denied);
            }
            assert_eq!(users.authenticate(None).await, Admission::Denied);
        }
    }

    #[test]
    fn a_hash_is_checked_without_a_verification() {
        let cost = |cost: &str| format!("$2y${cost}$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW");
        let begin = std::time::Instant::now();
        for (hash, fault) in [
            ("x".to_owned(), Some(HashFault::Malformed)),
            (cost("03"), Some(HashFault::Malformed)),
            (cost("04"), None),
            (cost("16"), None),
            (cost("17"), Some(HashFault::Costly(17))),
            (cost("31"), Some(HashFault::Costly(31))),
        ] {
            let users = Users::new(HashMap::from([("a".to_owned(), hash)]));
            assert_eq!(users.err(), fault.map(|fault| ("a".to_owned(), fault)));
        }
        // One verification of cost 16 takes seconds.
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn waiting_verifications_time_out() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let mut users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        users.timeout = Duration::from_millis(50);
        let permit = Arc::clone(&users.permit).acquire_owned().await.unwrap();
        assert_eq!(users.authenticate(Some(ALADDIN)).await, Admission::Busy);
        drop(permit);
        users.timeout = TIMEOUT;
        assert_eq!(users.authenticate(Some(ALADDIN)).await, Admission::Granted);
    }

    #[tokio::test]
    async fn a_disconnect_does_not_release_the_permit() {
        // Cost 10 takes some tens of milliseconds. The password need not match.
        let hash = "$2y$10$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW".to_owned();
        let users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        let gone = timeout(Duration::from_millis(1), users.authenticate(Some(ALADDIN))).await;
        assert!(gone.is_err(), "the verification is not that fast");
        assert_eq!(users.permit.available_permits(), 0);
        drop(users.permit.acquire().await.unwrap());
    }
}
