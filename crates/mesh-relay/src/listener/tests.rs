use super::*;

#[tokio::test]
async fn sockets_of_clients_are_as_the_constants_say() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    set_socket_options(&accepted).unwrap();
    assert!(accepted.nodelay().unwrap());
    let socket = SockRef::from(&accepted);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), TCP_KEEPALIVE);
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(TCP_USER_TIMEOUT));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_BYTES_MAX);
    }
}
