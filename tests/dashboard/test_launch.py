"""How the server is started."""

import socket

import pytest
from bitfront.dashboard import launch, server_arguments
from bitfront.errors import InvalidInput


def test_arguments_keep_it_private():
    arguments = server_arguments("127.0.0.1", 9000)
    assert "--server.address=127.0.0.1" in arguments
    assert "--server.port=9000" in arguments
    assert "--browser.gatherUsageStats=false" in arguments
    assert "--client.showErrorDetails=none" in arguments


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"no folder .*nothing"):
        launch([tmp_path / "nothing"])


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidInput, match="another host or port"):
            launch([tmp_path], port=taken.getsockname()[1])
