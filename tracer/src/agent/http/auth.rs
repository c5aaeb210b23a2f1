//! Passwords, by HTTP's basic authentication (RFC 7617).

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use tokio::{sync::Semaphore, time::timeout};

/// The most that a hash may cost, as its power of two: this one takes some seconds.
const MOST_COST: u32 = 16;
/// bcrypt's least (its `MIN_COST`): a hash of less is never right.
const LEAST_COST: u32 = 4;
/// How long a password waits for its turn to be compared.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a hash cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashFault {
    /// It is none.
    Malformed,
    /// It takes too long to compare with.
    Costly(u32),
}

/// Whether somebody may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// He may.
    Granted,
    /// He may not.
    Denied,
    /// That was not found out in time.
    Busy,
}

/// Who may look.
#[derive(Debug)]
pub(crate) struct Users {
    hashes: HashMap<String, String>,
    /// Compared with when nobody has the name, so that the time does not tell whether somebody has.
    decoy: String,
    /// What has been found right: a hash takes a tenth of a second on purpose. Only the names and passwords
    /// of the file can come in here.
    right: Arc<Mutex<HashSet<u64>>>,
    hasher: RandomState,
    /// One comparison at a time, so that guessing takes no more than one processor. It is the comparison that has
    /// the turn, not the client, who may be gone before it is over.
    turn: Arc<Semaphore>,
    /// How long a password waits for it.
    patience: Duration,
}

impl Users {
    /// Names with the bcrypt hashes of their passwords; else the name whose hash cannot be used.
    pub(crate) fn new(hashes: HashMap<String, String>) -> Result<Self, (String, HashFault)> {
        for (user, hash) in &hashes {
            if let Some(fault) = fault_of(hash) {
                return Err((user.clone(), fault));
            }
        }
        let decoy = hashes.values().next().cloned().unwrap_or_default();
        let turn = Arc::new(Semaphore::new(1));
        Ok(Self { hashes, decoy, right: Arc::default(), hasher: RandomState::new(), turn, patience: TIMEOUT })
    }

    /// Whether the header `Authorization` lets its sender in.
    pub(crate) async fn admits(&self, header: Option<&str>) -> Admission {
        let Some((user, password)) = header.and_then(credentials) else { return Admission::Denied };
        let key = self.hasher.hash_one((&user, &password));
        if self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Admission::Granted;
        }
        let known = self.hashes.get(&user);
        let hash = known.unwrap_or(&self.decoy).clone();
        let Ok(Ok(turn)) = timeout(self.patience, Arc::clone(&self.turn).acquire_owned()).await else {
            return Admission::Busy;
        };
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        if verified.await.unwrap_or(false) && known.is_some() {
            self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
            return Admission::Granted;
        }
        Admission::Denied
    }
}

/// What is wrong with a hash; without comparing anything with it, which takes its time on purpose.
fn fault_of(hash: &str) -> Option<HashFault> {
    match hash.parse::<bcrypt::HashParts>().map(|parts| parts.get_cost()) {
        Ok(LEAST_COST..=MOST_COST) => None,
        Ok(cost) if cost > MOST_COST => Some(HashFault::Costly(cost)),
        Ok(_) | Err(_) => Some(HashFault::Malformed),
    }
}

/// The name and password in `Basic` and base64.
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
    fn the_example_of_the_standard() {
        assert_eq!(credentials(ALADDIN), Some(("Aladdin".to_owned(), "open sesame".to_owned())));
        for header in ["", "Basic", "Bearer x", "Basic !!", "Basic Zm9v"] {
            assert_eq!(credentials(header), None, "{header}");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_let_in() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        for _ in 0..2 {
            assert_eq!(users.admits(Some(ALADDIN)).await, Admission::Granted);
            // Aladdin:wrong, and nobody:open sesame
            for header in ["Basic QWxhZGRpbjp3cm9uZw==", "Basic bm9ib2R5Om9wZW4gc2VzYW1l"] {
                assert_eq!(users.admits(Some(header)).await, Admission::Denied);
            }
            assert_eq!(users.admits(None).await, Admission::Denied);
        }
    }

    #[test]
    fn a_hash_is_judged_without_a_comparison() {
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
        // A single comparison with one of cost 16 takes seconds.
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn guessers_do_not_queue_without_end() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let mut users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        users.patience = Duration::from_millis(50);
        let turn = Arc::clone(&users.turn).acquire_owned().await.unwrap();
        assert_eq!(users.admits(Some(ALADDIN)).await, Admission::Busy);
        drop(turn);
        users.patience = TIMEOUT;
        assert_eq!(users.admits(Some(ALADDIN)).await, Admission::Granted);
    }

    #[tokio::test]
    async fn a_client_who_hangs_up_leaves_the_turn_to_his_comparison() {
        // Of cost 10, some tens of milliseconds; nothing has to be right.
        let hash = "$2y$10$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW".to_owned();
        let users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        let gone = timeout(Duration::from_millis(1), users.admits(Some(ALADDIN))).await;
        assert!(gone.is_err(), "the comparison is not that fast");
        assert_eq!(users.turn.available_permits(), 0);
        drop(users.turn.acquire().await.unwrap());
    }
}
