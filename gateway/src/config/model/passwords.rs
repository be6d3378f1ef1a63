//! What stands for a password: argon2id (RFC 9106) and bcrypt, as files of passwords hold them. A part of the model.
//!
//! Owns which hashes are taken and what they may cost, so that no configuration makes a log-in a load. Pure, and slow on
//! purpose: never on the thread of a worker.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};

/// Most memory that one verification may take, in KiB, and most passes over it.
const MOST_MEMORY: u32 = 256 << 10;
const MOST_PASSES: u32 = 16;
/// Highest cost of bcrypt: some seconds.
const MOST_COST: u32 = 15;
/// Longest password, in bytes.
pub const MOST_PASSWORD: usize = 1_024;

/// A hash that was found fit.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

impl PasswordHash {
    /// # Errors
    /// It is none that is taken. What was written stays out of the message: it may be the password itself.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.starts_with("$argon2id$") {
            let hash =
                phc::PasswordHash::new(text).map_err(|_| "the argon2id hash can not be read".to_owned())?;
            let parameter = |name: &str| {
                let value = hash.params.get(name).and_then(|value| value.decimal().ok());
                value.ok_or_else(|| format!("the argon2id hash has no {name}"))
            };
            if hash.hash.is_none() || hash.salt.is_none() {
                return Err("the argon2id hash is not whole".to_owned());
            }
            if parameter("m")? > MOST_MEMORY || parameter("t")? > MOST_PASSES {
                return Err(format!(
                    "the argon2id hash costs more than {MOST_MEMORY} KiB or {MOST_PASSES} passes for each log-in"
                ));
            }
            return Ok(Self(text.to_owned()));
        }
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|front| text.starts_with(front))
        {
            let parts: bcrypt::HashParts = text
                .parse()
                .map_err(|_| "the bcrypt hash can not be read".to_owned())?;
            if parts.get_cost() > MOST_COST {
                return Err(format!("the bcrypt hash has a cost of more than {MOST_COST}"));
            }
            return Ok(Self(text.to_owned()));
        }
        Err("this is no argon2id or bcrypt hash".to_owned())
    }

    /// Whether it is that of the password. Takes as long as the hash was made to take.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        if password.len() > MOST_PASSWORD {
            return false;
        }
        if self.0.starts_with("$argon2id$") {
            return phc::PasswordHash::new(&self.0)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
        }
        // More than 72 bytes are cut by bcrypt: two such passwords would be one.
        password.len() <= 72 && bcrypt::verify(password, &self.0).unwrap_or(false)
    }
}

/// Makes an argon2id hash: 19 MiB and two passes, as OWASP has it.
///
/// # Errors
/// There is no randomness, or the password is too long.
pub fn hash_password(password: &str) -> Result<String, String> {
    if password.len() > MOST_PASSWORD {
        return Err(format!("a password has at most {MOST_PASSWORD} bytes"));
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_made_read_and_bounded() {
        let made = hash_password("secret").unwrap();
        let hash = PasswordHash::new(&made).unwrap();
        assert!(hash.verify(b"secret") && !hash.verify(b"Secret") && !hash.verify(b""));
        assert!(made.contains("m=19456,t=2,p=1"), "{made}");
        assert_ne!(made, hash_password("secret").unwrap(), "salted");
        // By `htpasswd -nbB myName myPassword`, in the manual of Apache's server.
        let bcrypt =
            PasswordHash::new("$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC").unwrap();
        assert!(bcrypt.verify(b"myPassword") && !bcrypt.verify(b"myPasswor"));
        let long = bcrypt::hash("x".repeat(72), 4).unwrap();
        let long = PasswordHash::new(&long).unwrap();
        assert!(
            long.verify(&[b'x'; 72]) && !long.verify(&[b'x'; 73]),
            "no more than it looks at"
        );
        for bad in [
            "",
            "secret",
            "$argon2id$",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
            "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
            "$argon2id$v=19$m=65536,t=200,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
            "$2y$31$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe",
            "$2y$05$short",
            "$apr1$x$y",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        ] {
            let told = PasswordHash::new(bad).expect_err(bad);
            assert!(bad.is_empty() || !told.contains(bad));
        }
    }
}
