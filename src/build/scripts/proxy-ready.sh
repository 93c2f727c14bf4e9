#!/bin/sh
# A proxy opens its port before it serves (contract §8.2): it is ready when a PING is answered by anything else than
# `router is not online`. One with a session password answers NOAUTH, which is an answer.
answer=$(timeout 3 redis-cli -h 127.0.0.1 -p 19000 PING 2>&1) || true
case $answer in
'' | *'router is not online'* | *'Could not connect'* | *'Server closed the connection'* | *'Connection reset'*) exit 1 ;;
esac
