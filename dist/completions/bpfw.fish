# SPDX-License-Identifier: GPL-2.0-only
# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_bpfw_global_optspecs
    string join \n h/help V/version
end

function __fish_bpfw_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_bpfw_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_bpfw_using_subcommand
    set -l cmd (__fish_bpfw_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c bpfw -n "__fish_bpfw_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_needs_command" -s V -l version -d 'Print version'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "xdp" -d 'Forward in XDP, in the drivers of the interfaces: fastest'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "tc" -d 'Forward at the TC ingress: any interface, queueing disciplines and offloads included'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "run" -d 'Forward as a configuration file says, in which each key is an option; SIGHUP reads it again'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "reload" -d 'Have the configuration file read again, and wait for what came of it; as root, or as bpfw\'s user'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "check" -d 'Say what would happen, and attach to nothing; as root'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "status" -d 'Say whether bpfw forwards here, and if not, why'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "flows" -d 'List the offloaded connections, with packets, bytes and ways; as root'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "top" -d 'Show the connections or hosts with the most traffic, once a second; as root'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "why" -d 'Say why a connection is, or is not, on the fast path; without words, of all connections; as root'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "events" -d 'Tell when the offload of a connection begins and ends, with its final counts'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "metrics" -d 'Write the status in the text format of Prometheus'
complete -c bpfw -n "__fish_bpfw_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l interval -d 'Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or a second if that is more, all packets go to the stack' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l max-connections -d 'Connections to offload at most [default: the sysctl nf_conntrack_max]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l prove-every -d 'How often each direction of a connection must send one packet through the network stack, in seconds [default: 9, and up to 72 with more than 100,000 connections]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l log-level -d 'What to log; RUST_LOG, if set, says it in more detail' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l log-to -d 'Where to log to' -r -f -a "auto\t'The standard error, with priorities if it is systemd\'s journal'
stderr\t'The standard error'
syslog\t'The system\'s log, for service managers that take all of the standard error for errors'"
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l bpf-log-level -d 'What the datapath writes to the kernel\'s trace pipe' -r -f -a "off\t'Nothing; the messages are not even loaded'
info\t'Look-ups, signals, connections that end'
debug\t'Every packet\'s verdict too'"
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l xdp-mode -d 'How to attach XDP' -r -f -a "native\t'In the driver, or not at all'
generic\t'On the `sk_buff`: slower than TC'
auto\t'Native; where the driver cannot, generic with a warning'"
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l route-mark-mask -d 'Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -l offload-mark -d 'Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x hexadecimal [default: all]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand xdp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l interval -d 'Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or a second if that is more, all packets go to the stack' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l max-connections -d 'Connections to offload at most [default: the sysctl nf_conntrack_max]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l prove-every -d 'How often each direction of a connection must send one packet through the network stack, in seconds [default: 9, and up to 72 with more than 100,000 connections]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l log-level -d 'What to log; RUST_LOG, if set, says it in more detail' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l log-to -d 'Where to log to' -r -f -a "auto\t'The standard error, with priorities if it is systemd\'s journal'
stderr\t'The standard error'
syslog\t'The system\'s log, for service managers that take all of the standard error for errors'"
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l bpf-log-level -d 'What the datapath writes to the kernel\'s trace pipe' -r -f -a "off\t'Nothing; the messages are not even loaded'
info\t'Look-ups, signals, connections that end'
debug\t'Every packet\'s verdict too'"
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l xdp-mode -d 'How to attach XDP' -r -f -a "native\t'In the driver, or not at all'
generic\t'On the `sk_buff`: slower than TC'
auto\t'Native; where the driver cannot, generic with a warning'"
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l route-mark-mask -d 'Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -l offload-mark -d 'Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x hexadecimal [default: all]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand tc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l interval -d 'Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or a second if that is more, all packets go to the stack' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l max-connections -d 'Connections to offload at most [default: the sysctl nf_conntrack_max]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l prove-every -d 'How often each direction of a connection must send one packet through the network stack, in seconds [default: 9, and up to 72 with more than 100,000 connections]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l log-level -d 'What to log; RUST_LOG, if set, says it in more detail' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l log-to -d 'Where to log to' -r -f -a "auto\t'The standard error, with priorities if it is systemd\'s journal'
stderr\t'The standard error'
syslog\t'The system\'s log, for service managers that take all of the standard error for errors'"
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l bpf-log-level -d 'What the datapath writes to the kernel\'s trace pipe' -r -f -a "off\t'Nothing; the messages are not even loaded'
info\t'Look-ups, signals, connections that end'
debug\t'Every packet\'s verdict too'"
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l xdp-mode -d 'How to attach XDP' -r -f -a "native\t'In the driver, or not at all'
generic\t'On the `sk_buff`: slower than TC'
auto\t'Native; where the driver cannot, generic with a warning'"
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l route-mark-mask -d 'Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -l offload-mark -d 'Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x hexadecimal [default: all]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and not __fish_seen_subcommand_from xdp tc run help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and not __fish_seen_subcommand_from xdp tc run help" -f -a "xdp" -d 'What \'bpfw xdp\' would do with these words'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and not __fish_seen_subcommand_from xdp tc run help" -f -a "tc" -d 'What \'bpfw tc\' would do with these words'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and not __fish_seen_subcommand_from xdp tc run help" -f -a "run" -d 'What \'bpfw run\' would do with this file and these options'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and not __fish_seen_subcommand_from xdp tc run help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l interval -d 'Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or a second if that is more, all packets go to the stack' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l max-connections -d 'Connections to offload at most [default: the sysctl nf_conntrack_max]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l prove-every -d 'How often each direction of a connection must send one packet through the network stack, in seconds [default: 9, and up to 72 with more than 100,000 connections]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l log-level -d 'What to log; RUST_LOG, if set, says it in more detail' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l log-to -d 'Where to log to' -r -f -a "auto\t'The standard error, with priorities if it is systemd\'s journal'
stderr\t'The standard error'
syslog\t'The system\'s log, for service managers that take all of the standard error for errors'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l bpf-log-level -d 'What the datapath writes to the kernel\'s trace pipe' -r -f -a "off\t'Nothing; the messages are not even loaded'
info\t'Look-ups, signals, connections that end'
debug\t'Every packet\'s verdict too'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l xdp-mode -d 'How to attach XDP' -r -f -a "native\t'In the driver, or not at all'
generic\t'On the `sk_buff`: slower than TC'
auto\t'Native; where the driver cannot, generic with a warning'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l route-mark-mask -d 'Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -l offload-mark -d 'Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x hexadecimal [default: all]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from xdp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l interval -d 'Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or a second if that is more, all packets go to the stack' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l max-connections -d 'Connections to offload at most [default: the sysctl nf_conntrack_max]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l prove-every -d 'How often each direction of a connection must send one packet through the network stack, in seconds [default: 9, and up to 72 with more than 100,000 connections]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l log-level -d 'What to log; RUST_LOG, if set, says it in more detail' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l log-to -d 'Where to log to' -r -f -a "auto\t'The standard error, with priorities if it is systemd\'s journal'
stderr\t'The standard error'
syslog\t'The system\'s log, for service managers that take all of the standard error for errors'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l bpf-log-level -d 'What the datapath writes to the kernel\'s trace pipe' -r -f -a "off\t'Nothing; the messages are not even loaded'
info\t'Look-ups, signals, connections that end'
debug\t'Every packet\'s verdict too'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l xdp-mode -d 'How to attach XDP' -r -f -a "native\t'In the driver, or not at all'
generic\t'On the `sk_buff`: slower than TC'
auto\t'Native; where the driver cannot, generic with a warning'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l route-mark-mask -d 'Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -l offload-mark -d 'Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x hexadecimal [default: all]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from tc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l config -d 'The configuration file' -r -F
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l interval -d 'Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or a second if that is more, all packets go to the stack' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l max-connections -d 'Connections to offload at most [default: the sysctl nf_conntrack_max]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l prove-every -d 'How often each direction of a connection must send one packet through the network stack, in seconds [default: 9, and up to 72 with more than 100,000 connections]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l log-level -d 'What to log; RUST_LOG, if set, says it in more detail' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l log-to -d 'Where to log to' -r -f -a "auto\t'The standard error, with priorities if it is systemd\'s journal'
stderr\t'The standard error'
syslog\t'The system\'s log, for service managers that take all of the standard error for errors'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l bpf-log-level -d 'What the datapath writes to the kernel\'s trace pipe' -r -f -a "off\t'Nothing; the messages are not even loaded'
info\t'Look-ups, signals, connections that end'
debug\t'Every packet\'s verdict too'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l xdp-mode -d 'How to attach XDP' -r -f -a "native\t'In the driver, or not at all'
generic\t'On the `sk_buff`: slower than TC'
auto\t'Native; where the driver cannot, generic with a warning'"
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l route-mark-mask -d 'Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -l offload-mark -d 'Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x hexadecimal [default: all]' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from help" -f -a "xdp" -d 'What \'bpfw xdp\' would do with these words'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from help" -f -a "tc" -d 'What \'bpfw tc\' would do with these words'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from help" -f -a "run" -d 'What \'bpfw run\' would do with this file and these options'
complete -c bpfw -n "__fish_bpfw_using_subcommand check; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpfw -n "__fish_bpfw_using_subcommand status" -l json -d 'Write one JSON object a line for each daemon, as the daemon has sent it'
complete -c bpfw -n "__fish_bpfw_using_subcommand status" -l all -d 'Show all reasons, not only the most frequent ones'
complete -c bpfw -n "__fish_bpfw_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -s p -l proto -d 'Only this protocol: tcp or udp' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -s s -l src -l orig-src -d 'Only from this address or network' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -s d -l dst -l orig-dst -d 'Only to this address or network' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -l sport -l orig-port-src -d 'Only from this port' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -l dport -l orig-port-dst -d 'Only to this port' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -s m -l mark -d 'Only with this mark' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -s i -l interface -d 'Only by this interface, in or out' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -l sort -d 'In which order [default: by bytes on a terminal, else none, which needs no memory]' -r -f -a "bytes\t'Most bytes first, of both directions'
packets\t'Most packets first, of both directions'
rate\t'Most bytes a second first, of both directions; takes a second, and shows rates in place of bytes'
idle\t'Longest silence first'
none\t'As they are found'"
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -l limit -d 'So many connections at most' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -l json -d 'Write one JSON object a line for each connection'
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -l count -d 'Only count them'
complete -c bpfw -n "__fish_bpfw_using_subcommand flows" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -s p -l proto -d 'Only this protocol: tcp or udp' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -s s -l src -l orig-src -d 'Only from this address or network' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -s d -l dst -l orig-dst -d 'Only to this address or network' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -l sport -l orig-port-src -d 'Only from this port' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -l dport -l orig-port-dst -d 'Only to this port' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -s m -l mark -d 'Only with this mark' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -l by -d 'What to add up' -r -f -a "connection\t'Each connection'
host\t'Each host inside: the end with a private address, or else the one that opened the connection'"
complete -c bpfw -n "__fish_bpfw_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -s p -l proto -d 'Only this protocol: tcp or udp' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -s s -l src -l orig-src -d 'Only from this address or network' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -s d -l dst -l orig-dst -d 'Only to this address or network' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -l sport -l orig-port-src -d 'Only from this port' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -l dport -l orig-port-dst -d 'Only to this port' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -s m -l mark -d 'Only with this mark' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -l json -d 'Write one JSON object'
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -l watch -d 'Ask again each second, and write the answer whenever it is another one, until Ctrl-C'
complete -c bpfw -n "__fish_bpfw_using_subcommand why" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand events" -l interval -d 'So often a line for each connection that is still offloaded; as root' -r
complete -c bpfw -n "__fish_bpfw_using_subcommand events" -l json -d 'Write one JSON object a line'
complete -c bpfw -n "__fish_bpfw_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand metrics" -l output -d 'Write to this file, all at once, for a collector of text files; for example /var/lib/prometheus/node-exporter/bpfw.prom' -r -F
complete -c bpfw -n "__fish_bpfw_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "xdp" -d 'Forward in XDP, in the drivers of the interfaces: fastest'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "tc" -d 'Forward at the TC ingress: any interface, queueing disciplines and offloads included'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "run" -d 'Forward as a configuration file says, in which each key is an option; SIGHUP reads it again'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "reload" -d 'Have the configuration file read again, and wait for what came of it; as root, or as bpfw\'s user'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "check" -d 'Say what would happen, and attach to nothing; as root'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "status" -d 'Say whether bpfw forwards here, and if not, why'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "flows" -d 'List the offloaded connections, with packets, bytes and ways; as root'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "top" -d 'Show the connections or hosts with the most traffic, once a second; as root'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "why" -d 'Say why a connection is, or is not, on the fast path; without words, of all connections; as root'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "events" -d 'Tell when the offload of a connection begins and ends, with its final counts'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "metrics" -d 'Write the status in the text format of Prometheus'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and not __fish_seen_subcommand_from xdp tc run reload check status flows top why events metrics help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and __fish_seen_subcommand_from check" -f -a "xdp" -d 'What \'bpfw xdp\' would do with these words'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and __fish_seen_subcommand_from check" -f -a "tc" -d 'What \'bpfw tc\' would do with these words'
complete -c bpfw -n "__fish_bpfw_using_subcommand help; and __fish_seen_subcommand_from check" -f -a "run" -d 'What \'bpfw run\' would do with this file and these options'
