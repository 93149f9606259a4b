use shared::ids::DeviceId;
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::signing::{generate_key, sign_release};

use super::*;
use crate::audit::Action;
use crate::db::testing::on_both;
use crate::testing::Fixture;

struct Releaser(Secret<String>, ReleaseKey);

impl Releaser {
    fn new() -> Self {
        let (private, public) = generate_key(&SystemRandom).unwrap();
        Self(private, ReleaseKey::from_pem(&public).unwrap())
    }

    fn sign(&self, version: &str, platform: Platform, arch: Arch, program: &[u8]) -> SignedRelease {
        let team = (platform == Platform::Macos).then(|| "ABCDE12345".to_owned());
        let release = Release {
            version: version.to_owned(),
            platform,
            arch,
            size: program.len() as u64,
            sha256: hex(&sha256(program)),
            team,
        };
        sign_release(&release, &self.0).unwrap()
    }
}

fn runs(arch: Arch, failed: &[String]) -> Program {
    Program { arch: Some(arch), successions: Vec::new(), failed: failed.to_vec() }
}

#[test]
fn a_stage_grows_and_keeps_who_is_in_it() {
    let clock = shared::time::ManualClock::at(Timestamp::from_micros(0));
    let devices: Vec<_> = (0..2000).map(|_| DeviceId::new(&clock, &SystemRandom)).collect();
    let within = |digest: &str, percent| -> Vec<bool> {
        devices.iter().map(|device| is_in_stage(digest, *device, percent)).collect()
    };
    let count = |stage: &[bool]| stage.iter().filter(|one| **one).count();
    assert_eq!(count(&within("a", 0)), 0);
    assert_eq!(count(&within("a", 100)), devices.len());
    let (ten, half) = (within("a", 10), within("a", 50));
    assert!((100..300).contains(&count(&ten)) && (850..1150).contains(&count(&half)));
    assert!(ten.iter().zip(&half).all(|(ten, half)| !ten || *half), "who is in stays in");
    assert_eq!(ten, within("a", 10), "the same again");
    assert_ne!(ten, within("b", 10), "for another release others come first");
}

#[tokio::test]
async fn a_release_comes_in_with_its_own_program_only_and_is_offered_where_it_fits() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, id) = fixture.enrolled(client, "A-UUID").await;
        let (releaser, stranger, now) = (Releaser::new(), Releaser::new(), fixture.app.now());
        // More than one piece.
        let program: Vec<u8> = (0..PIECE * 2 + 5).map(|place| (place % 251) as u8).collect();
        let signed = releaser.sign("1.2.0", Platform::Linux, Arch::X86_64, &program);
        let mut tx = fixture.app.db.write().await.unwrap();
        let by_other = import(&mut tx, &signed, &program, &stranger.1, now).await;
        assert!(matches!(by_other, Err(ReleasesError::Release(ReleaseError::Signature))));
        let mut other = program.clone();
        other[PIECE] ^= 1;
        let with_other = import(&mut tx, &signed, &other, &releaser.1, now).await;
        assert!(matches!(with_other, Err(ReleasesError::OtherProgram { .. })));
        import(&mut tx, &signed, &program, &releaser.1, now).await.unwrap();
        let again = import(&mut tx, &signed, &program, &releaser.1, now).await;
        assert!(matches!(again, Err(ReleasesError::There { .. })));
        for (version, platform, arch) in [
            ("1.10.0", Platform::Linux, Arch::X86_64),
            ("1.9.0", Platform::Linux, Arch::X86_64),
            ("2.0.0", Platform::Linux, Arch::Aarch64),
            ("3.0.0", Platform::Macos, Arch::X86_64),
        ] {
            let signed = releaser.sign(version, platform, arch, b"another");
            import(&mut tx, &signed, b"another", &releaser.1, now).await.unwrap();
        }
        tx.commit().await.unwrap();

        let digest = signed.digest();
        let mut tx = fixture.app.db.write().await.unwrap();
        assert_eq!(size(&mut tx, &digest).await.unwrap(), Some(program.len() as u64));
        let mut handed_on = Vec::new();
        while let Some(bytes) =
            piece(&mut tx, &digest, i64::try_from(handed_on.len() / PIECE).unwrap()).await.unwrap()
        {
            handed_on.extend(bytes);
            if handed_on.len() % PIECE != 0 {
                break;
            }
        }
        assert!(handed_on == program, "the same bytes");

        let device = crate::enrollment::get_device(&mut tx, id).await.unwrap();
        let here = runs(Arch::X86_64, &[]);
        assert!(due(&mut tx, &device, "1.0.0", &here).await.unwrap().is_none(), "nothing is staged");
        assert!(matches!(stage(&mut tx, "9.9.9", 5, now).await, Err(ReleasesError::Unknown(_))));
        assert!(matches!(stage(&mut tx, "1.2.0", 101, now).await, Err(ReleasesError::Percent)));
        for version in ["1.2.0", "1.9.0", "1.10.0", "2.0.0", "3.0.0"] {
            stage(&mut tx, version, 100, now).await.unwrap();
        }
        let version_of = |offered: Option<SignedRelease>| {
            offered.map(|offered| offered.verify(&[releaser.1]).unwrap().version)
        };
        let offered = due(&mut tx, &device, "1.0.0", &here).await.unwrap();
        let newest = offered.as_ref().unwrap().digest();
        assert_eq!(version_of(offered).as_deref(), Some("1.10.0"), "by number, and for this machine");
        let failed = runs(Arch::X86_64, &[newest]);
        let offered = due(&mut tx, &device, "1.0.0", &failed).await.unwrap();
        assert_eq!(version_of(offered).as_deref(), Some("1.9.0"), "not what failed there");
        for (running, program) in [
            ("1.10.0", &here),
            ("2.0.0", &here),
            ("a build", &here),
            ("1.0.0", &Program { arch: None, ..here.clone() }),
        ] {
            assert!(due(&mut tx, &device, running, program).await.unwrap().is_none(), "{running}");
        }
        stage(&mut tx, "1.10.0", 0, now).await.unwrap();
        let offered = due(&mut tx, &device, "1.0.0", &here).await.unwrap();
        assert_eq!(version_of(offered).as_deref(), Some("1.9.0"));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_a_device_says_of_a_release_is_in_the_log_once() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, id) = fixture.enrolled(client, "A-UUID").await;
        let (releaser, now) = (Releaser::new(), fixture.app.now());
        let signed = releaser.sign("1.2.0", Platform::Linux, Arch::X86_64, b"program");
        let mut tx = fixture.app.db.write().await.unwrap();
        import(&mut tx, &signed, b"program", &releaser.1, now).await.unwrap();
        let device = crate::enrollment::get_device(&mut tx, id).await.unwrap();
        said(&mut tx, id, "1.0.0", Some(&runs(Arch::X86_64, &[])), now).await.unwrap();
        let report = ReleaseReport {
            digest: signed.digest(),
            outcome: ReleaseOutcome::WentBack,
            reason: "no hello was answered".to_owned(),
        };
        let entry = apply_report(&mut tx, &device, &report, "192.0.2.1", now).await.unwrap().unwrap();
        assert_eq!((entry.action, entry.device), (Action::ReleaseReported, Some(id)));
        assert!(apply_report(&mut tx, &device, &report, "192.0.2.1", now).await.unwrap().is_none());
        let made_up = ReleaseReport { digest: "0".repeat(64), ..report };
        let refused = apply_report(&mut tx, &device, &made_up, "192.0.2.1", now).await;
        assert!(matches!(refused, Err(ReleasesError::Unknown(_))));
        let [listed] = list(&mut tx).await.unwrap().try_into().unwrap();
        assert_eq!((listed.installed, listed.refused, listed.went_back), (0, 0, 1));
        let [row] = store::programs(&mut tx, 10).await.unwrap().try_into().unwrap();
        assert_eq!((row.version.as_str(), row.outcome), ("1.0.0", Some(ReleaseOutcome::WentBack)));
        assert_eq!(row.release_version.as_deref(), Some("1.2.0"));
        tx.commit().await.unwrap();
    })
    .await;
}
