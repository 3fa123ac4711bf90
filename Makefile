# Building and installing takes cargo alone; `make install` copies what `make` built.
#   make && sudo make install            into /usr/local
#   make install DESTDIR=pkg PREFIX=/usr for a package
PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
# mount(8) looks for its helpers here and nowhere else.
HELPERDIR ?= /sbin
DOCDIR  ?= $(PREFIX)/share/doc/mmpguard
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
CARGO   ?= cargo
INSTALL ?= install
BUILT   ?= target/release
DOCS    := README.md ARCHITECTURE.md CHANGELOG.md mmp-format.md LICENSE-MIT LICENSE-APACHE

.PHONY: all install uninstall check clean

all:
	$(CARGO) build --release --locked
	$(BUILT)/mmp generate man man
	$(BUILT)/mmp generate completions completions

# Builds nothing, so that it can run as another user than `all` did.
install:
	@test -d man -a -d completions || { echo 'run `make` first' >&2; exit 1; }
	$(INSTALL) -D -m 755 $(BUILT)/mmp $(DESTDIR)$(BINDIR)/mmp
	$(INSTALL) -d $(DESTDIR)$(HELPERDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(DOCDIR)
	ln -sf $(BINDIR)/mmp $(DESTDIR)$(HELPERDIR)/mount.mmp
	ln -sf $(BINDIR)/mmp $(DESTDIR)$(HELPERDIR)/umount.mmp
	$(INSTALL) -m 644 man/*.1 $(DESTDIR)$(MANDIR)/man1/
	$(INSTALL) -m 644 man/*.8 $(DESTDIR)$(MANDIR)/man8/
	$(INSTALL) -m 644 $(DOCS) $(DESTDIR)$(DOCDIR)/
	$(INSTALL) -D -m 644 completions/mmp.bash $(DESTDIR)$(BASHDIR)/mmp
	$(INSTALL) -D -m 644 completions/_mmp $(DESTDIR)$(ZSHDIR)/_mmp
	$(INSTALL) -D -m 644 completions/mmp.fish $(DESTDIR)$(FISHDIR)/mmp.fish

uninstall:
	rm -f $(DESTDIR)$(HELPERDIR)/mount.mmp $(DESTDIR)$(HELPERDIR)/umount.mmp
	rm -f $(DESTDIR)$(MANDIR)/man8/mount.mmp.8 $(DESTDIR)$(MANDIR)/man8/umount.mmp.8
	rm -f $(DESTDIR)$(BINDIR)/mmp $(DESTDIR)$(MANDIR)/man1/mmp.1 $(DESTDIR)$(MANDIR)/man1/mmp-*.1
	rm -f $(DESTDIR)$(BASHDIR)/mmp $(DESTDIR)$(ZSHDIR)/_mmp $(DESTDIR)$(FISHDIR)/mmp.fish
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,$(DOCS))
	-rmdir $(DESTDIR)$(DOCDIR)

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test --locked

clean:
	$(CARGO) clean
	rm -rf man completions
