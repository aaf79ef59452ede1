//! Serves a directory as S3 on a free port of the loopback, until its standard input ends.
//!
//! Prints the port. The buckets are the subdirectories.

use std::error::Error;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let [_, root, access, secret] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: s3-server DIRECTORY ACCESS-KEY SECRET-KEY".into());
    };
    let mut builder =
        S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).map_err(|error| format!("{error:?}"))?);
    builder.set_auth(SimpleAuth::from_single(access.clone(), secret.clone()));
    let service = builder.build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let serve = async {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                continue;
            };
            let service = service.clone();
            tokio::spawn(async move {
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    };
    let mut rest = Vec::new();
    let mut input = tokio::io::stdin();
    tokio::select! {
        () = serve => {}
        _ = input.read_to_end(&mut rest) => {}
    }
    Ok(())
}
