# OpenSSL's libcrypto, of the system: its security updates must reach us without a new build.
find_package(OpenSSL 3.0 QUIET)
if(NOT OpenSSL_FOUND)
    message(FATAL_ERROR
        "OpenSSL 3 with its headers is missing. Install libssl-dev (Debian, Ubuntu) or openssl-devel "
        "(Fedora), or pass -DOPENSSL_ROOT_DIR=<its prefix>.")
endif()
