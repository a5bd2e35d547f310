# Builds detach, and installs the program, its manual, and its completions for bash, zsh and fish. For GNU make.
#
#   make             builds the program with cargo
#   make install     installs what was built under PREFIX; DESTDIR is put in front of each directory
#   make uninstall   removes the same files; it needs the same variables
#
# `install` never builds, so that root does not compile: it looks for the program where `make` leaves it.
# PROGRAM=FILE installs another one, for example where a distribution has a build command of its own.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
INSTALL = install

bindir = $(PREFIX)/bin
datarootdir = $(PREFIX)/share
mandir = $(datarootdir)/man
man1dir = $(mandir)/man1
bashcompletiondir = $(datarootdir)/bash-completion/completions
# Debian's zsh reads the completions of packages from /usr/share/zsh/vendor-completions.
zshcompletiondir = $(datarootdir)/zsh/site-functions
# fish looks here if it has the same prefix, or if XDG_DATA_DIRS contains $(datarootdir).
fishcompletiondir = $(datarootdir)/fish/vendor_completions.d

# Where cargo puts the program: below the name of its target if there is one, as in .cargo/config.toml.
target = $(or $(CARGO_TARGET_DIR),target)
built = $(wildcard $(target)/*/release/detach $(target)/release/detach)
nothing = there is no program in $(target)/*/release: run 'make' first, or set PROGRAM
several = there are several programs; set PROGRAM to one of these: $(built)
PROGRAM = $(if $(word 2,$(built)),$(error $(several)),$(or $(built),$(error $(nothing))))

all:
	$(CARGO) build --release --locked --target-dir "$(target)"

install:
	$(INSTALL) -D -m 755 "$(PROGRAM)" "$(DESTDIR)$(bindir)/detach"
	$(INSTALL) -D -m 644 man/detach.1 "$(DESTDIR)$(man1dir)/detach.1"
	$(INSTALL) -D -m 644 completions/detach.bash "$(DESTDIR)$(bashcompletiondir)/detach"
	$(INSTALL) -D -m 644 completions/_detach "$(DESTDIR)$(zshcompletiondir)/_detach"
	$(INSTALL) -D -m 644 completions/detach.fish "$(DESTDIR)$(fishcompletiondir)/detach.fish"

uninstall:
	rm -f "$(DESTDIR)$(bindir)/detach"
	rm -f "$(DESTDIR)$(man1dir)/detach.1"
	rm -f "$(DESTDIR)$(bashcompletiondir)/detach"
	rm -f "$(DESTDIR)$(zshcompletiondir)/_detach"
	rm -f "$(DESTDIR)$(fishcompletiondir)/detach.fish"

.PHONY: all install uninstall
