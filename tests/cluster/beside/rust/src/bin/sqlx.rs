//! What sqlx does beside a node: `values FILE`, `timeout FILE`, `think FILE COUNT MS`.
use sqlx::{sqlite::SqliteConnection, Connection, Error};
use std::{env, time::Duration};

async fn values(connection: &mut SqliteConnection) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    let seen: String =
        sqlx::query_scalar("SELECT value FROM v WHERE id = 'theirs'").fetch_one(&mut *transaction).await?;
    let insert = "INSERT INTO v VALUES (?, ?)";
    sqlx::query(insert).bind("null").bind(None::<String>).execute(&mut *transaction).await?;
    sqlx::query(insert).bind("integer").bind(i64::MAX).execute(&mut *transaction).await?;
    sqlx::query(insert).bind("real").bind(0.1).execute(&mut *transaction).await?;
    sqlx::query(insert).bind("text").bind("grüß'e").execute(&mut *transaction).await?;
    sqlx::query(insert).bind("blob").bind(vec![0u8, 255, 0]).execute(&mut *transaction).await?;
    sqlx::query(insert).bind("read").bind(seen).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn once(connection: &mut SqliteConnection, n: i64, pause: Duration) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT n FROM t WHERE id = 1").fetch_one(&mut *transaction).await?;
    tokio::time::sleep(pause).await;
    sqlx::query("UPDATE t SET n = ? WHERE id = 1").bind(n).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn run(given: &[String]) -> Result<(), Error> {
    let mut connection = SqliteConnection::connect(&given[2]).await?;
    match given[1].as_str() {
        "values" => values(&mut connection).await?,
        "timeout" => {
            let found: i64 = sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(&mut connection).await?;
            println!("{found}");
        }
        _ => {
            let (count, pause): (i64, u64) = (given[3].parse().unwrap(), given[4].parse().unwrap());
            let mut failed = 0;
            for n in 0..count {
                failed += once(&mut connection, n, Duration::from_millis(pause)).await.is_err() as u64;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            println!("{failed}");
        }
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let given: Vec<String> = env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(run(&given))
}
