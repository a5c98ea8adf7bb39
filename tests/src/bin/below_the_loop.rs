//! A plugin on the SDK's connection alone, without its run loop: it denies with the keys
//! of one page of metadata, and ends with the stream of admissions.

use admission_sdk::Status;
use admission_sdk::connection::{Connection, Severity};
use tokio::runtime::Builder;

fn main() -> anyhow::Result<()> {
    // The connection needs nothing of the runtime that awaits it.
    Builder::new_current_thread().build()?.block_on(judge())
}

async fn judge() -> anyhow::Result<()> {
    let connection = Connection::open().await?;
    let mut admissions = connection.list_admissions("below the loop");
    while let Some(admission) = admissions.next().await? {
        let page = connection.list_metadata(&admission, &["a"], 3, "from here");
        let outcome = page.await.and_then(|page| {
            let keys: Vec<_> = page.metadata.iter().map(|entry| &entry.key[..]).collect();
            let keys = keys.join(" ");
            Err(Status::denied(format!("{keys}; {}", page.next_page_token)))
        });
        connection.log(Severity::Debug, "judged").await?;
        connection
            .resolve_admission(&admission.admission_id, outcome)
            .await?;
    }
    Ok(())
}
