//! How fast it is, by the real clock. Says so with `--nocapture`.

use super::*;

/// Bytes that go each way of the measurement.
const LENGTH: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures the machine"]
async fn throughput_of_one_connection() {
    let (a, b) = pair();
    let (mut client, mut server) = connect(&a, &b, B4).await;
    let started_at = std::time::Instant::now();
    let send = tokio::spawn(async move {
        let bytes = vec![7; 64 * 1024];
        for _ in 0..LENGTH / bytes.len() {
            client.write_all(&bytes).await.expect("written");
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    while received < LENGTH {
        received += server.read(&mut buffer).await.expect("read");
    }
    send.await.expect("all sent");
    let bits = u32::try_from(received >> 17).map(f64::from).expect("not that much");
    println!("{:.0} Mibit/s", bits / started_at.elapsed().as_secs_f64());
}
