# Building and installing takes cargo alone; `make install` copies what `make` built.
#   make && sudo make install                            into /usr/local, helpers of mount(8) into /sbin
#   make install DESTDIR=pkg PREFIX=/usr SBINDIR=/usr/sbin for a package
PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  ?= $(PREFIX)/bin
# Where mount(8) looks for its helpers, and nowhere else. On a system with one /usr it is a link to /usr/sbin, which a package
# has to name: unpacked by anything but dpkg, a directory /sbin would take the link's place.
SBINDIR ?= /sbin
SYSCONFDIR ?= /etc
MANDIR  ?= $(PREFIX)/share/man
DOCDIR  ?= $(PREFIX)/share/doc/mmpguard
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
CARGO   ?= cargo
INSTALL ?= install
BUILT   ?= target/release
# Where man pages and completions are generated.
MAN         ?= man
COMPLETIONS ?= completions
DOCS    := README.md ARCHITECTURE.md CHANGELOG.md mmp-format.md docs/guide.md docs/safety.md LICENSE-MIT LICENSE-APACHE
UNITS   := mmpd.service mmpd.socket mmpd-monitor.socket
EXAMPLES := packaging/systemd/examples/mount.conf packaging/systemd/examples/user.conf packaging/mmp.toml \
    $(wildcard packaging/prometheus/*.*)
HELPERS := mount.mmp umount.mmp
CONFIG  := $(DESTDIR)$(SYSCONFDIR)/mmp/mmp.toml

.PHONY: all generated install uninstall check clean

all:
	$(CARGO) build --release --locked
	$(MAKE) generated

# A page of a verb that is gone would be installed for ever.
generated:
	rm -rf $(MAN) $(COMPLETIONS)
	$(BUILT)/mmp generate man $(MAN)
	$(BUILT)/mmp generate completions $(COMPLETIONS)

# Builds nothing, so that it can run as another user than `all` did. A configuration that is there is left as it is. Where systemd runs and nothing
# is staged, the group of the monitoring socket is made, and the units are known at once.
install:
	@test -d $(MAN) -a -d $(COMPLETIONS) || { echo 'run `make` first' >&2; exit 1; }
	$(INSTALL) -D -m 755 $(BUILT)/mmp $(DESTDIR)$(BINDIR)/mmp
	ln -sfn mmp $(DESTDIR)$(BINDIR)/mmpd
	$(INSTALL) -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(DOCDIR)/examples $(DESTDIR)$(UNITDIR)
	for helper in $(HELPERS); do ln -sfn $(BINDIR)/mmp $(DESTDIR)$(SBINDIR)/$$helper || exit 1; done
	for unit in $(UNITS); do \
	    sed 's#/usr/bin/mmp #$(BINDIR)/mmp #' packaging/systemd/$$unit > $(DESTDIR)$(UNITDIR)/$$unit && \
	    chmod 644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	$(INSTALL) -D -m 644 packaging/systemd/mmp.sysusers $(DESTDIR)$(SYSUSERSDIR)/mmp.conf
	test -e $(CONFIG) || $(INSTALL) -D -m 644 packaging/mmp.toml $(CONFIG)
	for section in 1 5 7 8; do \
	    $(INSTALL) -d $(DESTDIR)$(MANDIR)/man$$section && \
	    $(INSTALL) -m 644 $(MAN)/*.$$section $(DESTDIR)$(MANDIR)/man$$section/ || exit 1; \
	done
	$(INSTALL) -m 644 $(DOCS) $(DESTDIR)$(DOCDIR)/
	$(INSTALL) -m 644 $(EXAMPLES) $(DESTDIR)$(DOCDIR)/examples/
	$(INSTALL) -D -m 644 $(COMPLETIONS)/mmp.bash $(DESTDIR)$(BASHDIR)/mmp
	$(INSTALL) -D -m 644 $(COMPLETIONS)/_mmp $(DESTDIR)$(ZSHDIR)/_mmp
	$(INSTALL) -D -m 644 $(COMPLETIONS)/mmp.fish $(DESTDIR)$(FISHDIR)/mmp.fish
	if test -z "$(DESTDIR)" -a -d /run/systemd/system; then \
	    systemd-sysusers $(SYSUSERSDIR)/mmp.conf && systemctl daemon-reload || \
	    echo 'as root: make the group mmp, then systemctl daemon-reload' >&2; \
	fi

# Guards that run are not stopped: what they protect is mounted. A configuration that was changed stays.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/mmp $(DESTDIR)$(BINDIR)/mmpd
	rm -f $(addprefix $(DESTDIR)$(SBINDIR)/,$(HELPERS))
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS)) $(DESTDIR)$(SYSUSERSDIR)/mmp.conf
	rm -f $(DESTDIR)$(MANDIR)/man1/mmp.1 $(DESTDIR)$(MANDIR)/man1/mmp-*.1
	rm -f $(DESTDIR)$(MANDIR)/man5/mmp.toml.5 $(DESTDIR)$(MANDIR)/man5/mmp-format.5 $(DESTDIR)$(MANDIR)/man7/mmp.7
	rm -f $(DESTDIR)$(MANDIR)/man8/mount.mmp.8 $(DESTDIR)$(MANDIR)/man8/umount.mmp.8
	rm -f $(DESTDIR)$(BASHDIR)/mmp $(DESTDIR)$(ZSHDIR)/_mmp $(DESTDIR)$(FISHDIR)/mmp.fish
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,$(notdir $(DOCS))) $(addprefix $(DESTDIR)$(DOCDIR)/examples/,$(notdir $(EXAMPLES)))
	-rmdir $(DESTDIR)$(DOCDIR)/examples $(DESTDIR)$(DOCDIR)
	if cmp -s packaging/mmp.toml $(CONFIG); then rm -f $(CONFIG); rmdir $(dir $(CONFIG)); fi

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test --locked

clean:
	$(CARGO) clean
	rm -rf $(MAN) $(COMPLETIONS)
