// Fails chosen system calls of the process it is preloaded into.
//
// A seccomp filter turns every call of interest into a signal, whose handler counts it and either fails it or makes it
// again with a mark that the filter lets through. So calls that bypass the C library are caught as well.
//
// From the environment, or by `faults_arm`: TVLMC_FAULT=KIND:N:ERRNO[:MODE], with KIND one of the letters below.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef __x86_64__
#error "only for x86-64"
#endif

#define MARK 0x7476

enum { ONCE = 0, STICKY = 1, SHORT = 2 };

static volatile int armed_kind, armed_nth, armed_errno, armed_mode, plain_renames, counts[128];

// What to fail, and how: MODE 0 once, 1 from then on, 2 first half of a write and then as 1. Counts start again.
void faults_arm(int kind, int nth, int error, int mode) {
    memset((void *)counts, 0, sizeof counts);
    armed_nth = nth;
    armed_errno = error;
    armed_mode = mode;
    armed_kind = kind;
}

// Whether exchanging, and renaming to a name that must be free, are unknown to the file system.
void faults_plain_renames(int yes) { plain_renames = yes; }

// Calls of a kind since it was armed.
int faults_count(int kind) { return counts[kind]; }

// w write, o create a file, d create a folder, s flush, r rename, x exchange or rename to a free name, a allocate,
// u remove, p read at an offset.
static int kind_of(long nr, const greg_t *g) {
    switch (nr) {
    case SYS_write: return g[REG_RDI] > 2 ? 'w' : 0;
    case SYS_open: return g[REG_RSI] & O_CREAT ? 'o' : 0;
    case SYS_openat: return g[REG_RDX] & O_CREAT ? 'o' : 0;
    case SYS_mkdir: case SYS_mkdirat: return 'd';
    case SYS_fsync: case SYS_fdatasync: return 's';
    case SYS_rename: case SYS_renameat: return 'r';
    case SYS_renameat2: return g[REG_R8] ? 'x' : 'r';
    case SYS_fallocate: return 'a';
    case SYS_unlink: case SYS_rmdir: case SYS_unlinkat: return 'u';
    case SYS_pread64: return 'p';
    default: return 0;
    }
}

static long again(long nr, greg_t *g, long third) {
    register long r10 __asm__("r10") = g[REG_R10];
    register long r8 __asm__("r8") = g[REG_R8];
    register long r9 __asm__("r9") = MARK;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(g[REG_RDI]), "S"(g[REG_RSI]), "d"(third), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void caught(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    long nr = info->si_syscall, third = g[REG_RDX];
    int kind = kind_of(nr, g);
    if (kind == 'x' && plain_renames) {
        g[REG_RAX] = -EINVAL;
        return;
    }
    if (kind) {
        int n = __sync_add_and_fetch(&counts[kind], 1);
        int nth = armed_nth + (armed_mode == SHORT);
        if (kind == armed_kind && (n == nth || (n > nth && armed_mode != ONCE))) {
            g[REG_RAX] = -armed_errno;
            return;
        }
        if (kind == armed_kind && n == armed_nth && third > 1)
            third /= 2;
    }
    g[REG_RAX] = again(nr, g, third);
}

__attribute__((constructor)) static void install(void) {
    const char *wanted = getenv("TVLMC_FAULT");
    char kind;
    int nth, error, mode = ONCE;
    if (wanted && sscanf(wanted, "%c:%d:%d:%d", &kind, &nth, &error, &mode) >= 3)
        faults_arm(kind, nth, error, mode);

    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    sigaction(SIGSYS, &action, NULL);
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define TRAP(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)
    struct sock_filter filter[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        LOAD(args[5]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        LOAD(nr),
        TRAP(SYS_write), TRAP(SYS_open), TRAP(SYS_openat), TRAP(SYS_mkdir), TRAP(SYS_mkdirat), TRAP(SYS_fsync),
        TRAP(SYS_fdatasync), TRAP(SYS_rename), TRAP(SYS_renameat), TRAP(SYS_renameat2), TRAP(SYS_fallocate),
        TRAP(SYS_unlink), TRAP(SYS_rmdir), TRAP(SYS_unlinkat), TRAP(SYS_pread64),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        fprintf(stderr, "no system call can be made to fail here: %s\n", strerror(errno));
        _exit(77);
    }
}
