//! What rusqlite does beside a node: `values FILE`, `timeout FILE`, `think FILE COUNT MS`.
use rusqlite::{params, types::Value, Connection, Result};
use std::{env, thread::sleep, time::Duration};

fn values(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction()?;
    let seen: String = transaction.query_row("SELECT value FROM v WHERE id = 'theirs'", [], |row| row.get(0))?;
    for (name, value) in [
        ("null", Value::Null),
        ("integer", Value::Integer(i64::MAX)),
        ("real", Value::Real(0.1)),
        ("text", Value::Text("grüß'e".into())),
        ("blob", Value::Blob(vec![0, 255, 0])),
        ("read", Value::Text(seen)),
    ] {
        transaction.execute("INSERT INTO v VALUES (?1, ?2)", params![name, value])?;
    }
    transaction.commit()
}

fn once(connection: &mut Connection, n: u64, pause: Duration) -> Result<()> {
    let transaction = connection.transaction()?;
    transaction.query_row("SELECT n FROM t WHERE id = 1", [], |row| row.get::<_, i64>(0))?;
    sleep(pause);
    transaction.execute("UPDATE t SET n = ?1 WHERE id = 1", params![n as i64])?;
    transaction.commit()
}

fn main() -> Result<()> {
    let given: Vec<String> = env::args().collect();
    let mut connection = Connection::open(&given[2])?;
    match given[1].as_str() {
        "values" => values(&mut connection)?,
        "timeout" => println!("{}", connection.query_row("PRAGMA busy_timeout", [], |row| row.get::<_, i64>(0))?),
        _ => {
            let (count, pause): (u64, u64) = (given[3].parse().unwrap(), given[4].parse().unwrap());
            let mut failed = 0;
            for n in 0..count {
                failed += once(&mut connection, n, Duration::from_millis(pause)).is_err() as u64;
                sleep(Duration::from_millis(2));
            }
            println!("{failed}");
        }
    }
    Ok(())
}
