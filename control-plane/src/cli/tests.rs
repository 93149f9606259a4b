use clap::Parser as _;

use super::{Cli, run};

#[tokio::test]
async fn commands_beside_the_board_bring_its_database_up_to_date_first() {
    let commands: [&[&str]; 4] = [
        &["ca", "status"],
        &["ca", "rotate"],
        &["rotate", "--client", "x", "--all", "--reason", "it leaked"],
        &["rekey", "--to", "file:never-made.key"],
    ];
    for arguments in commands {
        let folder = tempfile::tempdir().unwrap();
        // As an older board's is, it has not every table.
        std::fs::File::create(folder.path().join("board.db")).unwrap();
        let place = ["--data", folder.path().to_str().unwrap()];
        let whole = [&["board"], arguments, &place].concat();
        let refused = format!("{:#}", run(Cli::parse_from(&whole)).await.unwrap_err());
        assert!(refused.contains("board init"), "{whole:?}: {refused}");
    }
}
