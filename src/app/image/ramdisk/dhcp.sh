#!/bin/sh
# What udhcpc has to say, put into effect. It sets these variables: interface, ip, mask, router, dns.
# shellcheck disable=SC2154

case $1 in
    deconfig)
        ip link set "$interface" up
        ;;
    bound | renew)
        if ! ip -4 -o addr show dev "$interface" | grep -q " $ip/"; then
            ip addr flush dev "$interface"
            ip addr add "$ip/${mask:-24}" dev "$interface"
        fi
        for gateway in $router; do
            ip route replace default via "$gateway" dev "$interface"
            break
        done
        : >/etc/resolv.conf
        for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
        ;;
esac
