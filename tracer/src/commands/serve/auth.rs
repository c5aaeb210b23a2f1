//! Passwords, by HTTP's basic authentication (RFC 7617).

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use tokio::sync::Semaphore;

/// Who may look.
#[derive(Debug)]
pub(super) struct Users {
    hashes: HashMap<String, String>,
    /// Compared with when nobody has the name, so that the time does not tell whether somebody has.
    decoy: String,
    /// What has been found right: a hash takes a tenth of a second on purpose. Only the names and passwords
    /// of the file can come in here.
    right: Arc<Mutex<HashSet<u64>>>,
    hasher: RandomState,
    /// One comparison at a time, so that guessing takes no more than one processor.
    turn: Semaphore,
}

impl Users {
    /// Names with the bcrypt hashes of their passwords; else the name whose hash is none.
    pub(super) fn new(hashes: HashMap<String, String>) -> Result<Self, String> {
        let wrong = hashes.iter().find(|(_, hash)| bcrypt::verify("", hash).is_err());
        if let Some((user, _)) = wrong {
            return Err(user.clone());
        }
        let decoy = hashes.values().next().cloned().unwrap_or_default();
        Ok(Self { hashes, decoy, right: Arc::default(), hasher: RandomState::new(), turn: Semaphore::new(1) })
    }

    /// Whether the header `Authorization` lets its sender in.
    pub(super) async fn admits(&self, header: Option<&str>) -> bool {
        let Some((user, password)) = header.and_then(credentials) else { return false };
        let key = self.hasher.hash_one((&user, &password));
        if self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return true;
        }
        let known = self.hashes.get(&user);
        let hash = known.unwrap_or(&self.decoy).clone();
        let Ok(_turn) = self.turn.acquire().await else { return false };
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
        let right = verified.await.unwrap_or(false) && known.is_some();
        if right {
            self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        right
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

    #[test]
    fn the_example_of_the_standard() {
        // RFC 7617, section 2.
        assert_eq!(
            credentials("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            Some(("Aladdin".to_owned(), "open sesame".to_owned()))
        );
        for header in ["", "Basic", "Bearer x", "Basic !!", "Basic Zm9v"] {
            assert_eq!(credentials(header), None, "{header}");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_let_in() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let users = Users::new(HashMap::from([("Aladdin".to_owned(), hash)])).unwrap();
        for _ in 0..2 {
            assert!(users.admits(Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")).await);
            // Aladdin:wrong, and nobody:open sesame
            assert!(!users.admits(Some("Basic QWxhZGRpbjp3cm9uZw==")).await);
            assert!(!users.admits(Some("Basic bm9ib2R5Om9wZW4gc2VzYW1l")).await);
            assert!(!users.admits(None).await);
        }
        assert_eq!(Users::new(HashMap::from([("a".to_owned(), "x".to_owned())])).unwrap_err(), "a");
    }
}
