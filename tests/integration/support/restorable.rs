//! A database of PostgreSQL that is restored to an older copy under running relays.

use std::time::Duration;

use rnostr_test_services::Postgres as Engine;

/// A database that can be put back to its state at the time of a copy.
pub struct Restorable {
    pub url: String,
    pub name: String,
    copy: Option<String>,
}

impl Restorable {
    /// An empty database.
    pub fn new() -> Self {
        let url = Engine::shared().create_database();
        let name = url.rsplit('/').next().expect("a name").to_owned();
        Self { url, name, copy: None }
    }

    /// Keeps a copy. No relay may be connected.
    pub fn copy(&mut self) {
        let copy = Engine::shared().create_database_from(&self.url);
        self.copy = Some(copy.rsplit('/').next().expect("a name").to_owned());
    }

    /// Puts the copy in the database's place, under the relays that are connected.
    pub fn restore(&mut self) {
        let (name, copy) = (&self.name, self.copy.take().expect("a copy"));
        let admin = |sql: &str| Engine::shared().psql(&Engine::shared().url("postgres"), sql).expect("psql");
        admin(&format!("alter database \"{name}\" with allow_connections false"));
        admin(&format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"));
        while admin(&format!("select count(*) from pg_stat_activity where datname = '{name}'")) != "0" {
            std::thread::sleep(Duration::from_millis(5));
        }
        admin(&format!("alter database \"{name}\" rename to \"{name}_old\""));
        admin(&format!("alter database \"{copy}\" rename to \"{name}\""));
    }
}

impl Drop for Restorable {
    fn drop(&mut self) {
        Engine::shared().drop_database(&self.name);
        Engine::shared().drop_database(&format!("{}_old", self.name));
    }
}
