# SPDX-License-Identifier: GPL-2.0-only
# BPF objects, checks, tests, demonstration. 'make help' lists the targets.

CLANG    ?= clang
CARGO    ?= cargo
HOOK     ?= xdp
KERNEL   ?= 6.12
OBJ      := bpf/obj
SOURCES  := $(wildcard bpf/*.[ch] bpf/shim/asm/*.h include/bpfw_abi.h) bpf/flags
FLAGS    := $(shell cat bpf/flags) $(BPF_CFLAGS)
# build.rs compiles the same sources by the same flags, and by the same compiler if one is named.
# The default is not passed on: cargo would take it for a change, and build anew.
BPF_CLANG ?= $(CLANG)
ifneq ($(BPF_CLANG),clang)
export BPF_CLANG
endif

.DELETE_ON_ERROR:
.PHONY: all xdp tc le be xdp-le xdp-be tc-le tc-be openwrt help build release \
	install-deps install-deps-vm install-deps-cross check audit test test-dist test-vm test-vm-all \
	test-nic test-cross fuzz bench bench-object bench-vm demo run clean

# OPENWRT_DIR and TARGET are the names that the first bpfw's makefile had for this.
ifneq ($(OPENWRT_DIR),)
all: openwrt
else
all: xdp tc
endif
xdp: xdp-le xdp-be
tc: tc-le tc-be
le: xdp-le tc-le
be: xdp-be tc-be

xdp-le: $(OBJ)/xdp_le_bpfw.o
xdp-be: $(OBJ)/xdp_be_bpfw.o
tc-le: $(OBJ)/tc_le_bpfw.o
tc-be: $(OBJ)/tc_be_bpfw.o

$(OBJ)/%_le_bpfw.o: bpf/%.bpf.c $(SOURCES)
	@mkdir -p $(OBJ)
	$(BPF_CLANG) -target bpfel $(FLAGS) -c $< -o $@

$(OBJ)/%_be_bpfw.o: bpf/%.bpf.c $(SOURCES)
	@mkdir -p $(OBJ)
	$(BPF_CLANG) -target bpfeb $(FLAGS) -c $< -o $@

bench-object: $(OBJ)/generator.bpf.o

$(OBJ)/generator.bpf.o: benches/bpf/generator.bpf.c benches/bpf/frame.h benches/bpf/plan.h \
		tests/support/go_on.h $(SOURCES)
	@mkdir -p $(OBJ)
	$(BPF_CLANG) -target bpf $(FLAGS) -c $< -o $@

help:
	@echo 'Build'
	@echo '  all xdp tc le be xdp-le xdp-be tc-le tc-be   BPF objects, to $(OBJ)/'
	@echo '  build, release       the daemon, to target/debug/ or target/release/'
	@echo '  OPENWRT_DIR=DIR TARGET=<x86_64|aarch64|...>   bpfw for that OpenWrt target, to target/openwrt/'
	@echo '  install-deps         Debian packages and, where there is none, a Rust toolchain'
	@echo '  install-deps-vm      the same, and what emulates a machine for tests/vm/run'
	@echo '  install-deps-cross   the same, and compilers for other machines'
	@echo '  clean                removes what was built'
	@echo 'Try (as root)'
	@echo '  demo                 a client, a router and a server in network namespaces'
	@echo '  run                  the daemon; HOOK=xdp|tc IFACES="lan0 wan0"'
	@echo 'Check and test'
	@echo '  check                formatting, lints, compiler warnings, lengths of sentences'
	@echo '  audit                licenses and known vulnerabilities of all dependencies'
	@echo '  test                 all tests; as root also those on the running kernel'
	@echo '  test-vm              chosen tests in a VM; KERNEL=5.10|6.1|6.12|newest|openwrt-like|FOLDER,'
	@echo '                       TESTS="nat lifecycle/hazard_02"; openwrt-like is built for it, once'
	@echo "  test-vm-all          the same with each of Debian's kernels, and a table of all"
	@echo '  test-nic             bpfw on NICs that QEMU emulates, in a VM; KERNEL=6.1|6.12|newest,'
	@echo '                       PAIRS="igb:igb virtio:e1000e": only over these, LAN:WAN'
	@echo '  test-cross           builds for OpenWrt-like trees and s390x, and tests the results in VMs;'
	@echo '                       MACHINES="x86_64 aarch64 s390x"'
	@echo "  test-dist            dist/'s unit under a real systemd, in namespaces, as root"
	@echo '  fuzz                 each fuzz target for FUZZ_SECONDS=60; needs cargo-fuzz, better as root'
	@echo 'Measure'
	@echo '  bench                what a packet, a connection and a large router cost, as root;'
	@echo '                       BENCH="packets|connections|scale|throughput --help" lists options'
	@echo '  bench-vm             instructions that a packet costs, in a VM; KERNEL= and BENCH= as above'
	@echo '  bench-object         the BPF object of bench alone, for machines without a compiler'

openwrt:
	@scripts/openwrt "$(OPENWRT_DIR)" "$(TARGET)"

build: install-deps
	$(CARGO) build

release: install-deps
	$(CARGO) build --release

install-deps:
	@scripts/install-deps

install-deps-vm:
	@scripts/install-deps vm

install-deps-cross:
	@scripts/install-deps cross

check: install-deps
	scripts/check

audit:
	scripts/audit

# VM="KERNEL TEST...": these in a VM as well.
test: install-deps
	scripts/test $(VM)

test-dist: install-deps
	$(CARGO) test --test service -- --ignored

fuzz: install-deps
	scripts/fuzz

bench: install-deps
	$(CARGO) bench --bench bpfw -- $(or $(BENCH),packets)
	$(if $(BENCH),,$(CARGO) bench --bench bpfw -- connections)
	$(if $(BENCH),,$(CARGO) bench --bench bpfw -- scale)
	$(if $(BENCH),,$(CARGO) bench --bench bpfw -- throughput)

# Where they cannot be installed, the tests say that they are skipped.
test-vm:
	-@scripts/install-deps vm
	tests/vm/test $(KERNEL) $(TESTS)

test-vm-all:
	-@scripts/install-deps vm
	tests/vm/test-all

test-nic:
	-@scripts/install-deps vm
	tests/nic/test $(KERNEL) $(PAIRS)

test-cross:
	-@scripts/install-deps cross
	tests/cross/test $(MACHINES)

bench-vm: install-deps-vm
	tests/vm/bench $(KERNEL) $(BENCH)

demo:
	@test "$$(id -u)" = 0 || { echo 'make demo needs root, for network namespaces and BPF: sudo make demo' >&2; exit 1; }
	@$(MAKE) --no-print-directory release
	scripts/demo

run: release
	@test -n "$(IFACES)" || { echo 'make run HOOK=$(HOOK) IFACES="lan0 wan0"' >&2; exit 2; }
	target/release/bpfw $(HOOK) $(IFACES)

clean:
	rm -rf $(OBJ)
	$(CARGO) clean
