# -Og and no more than line tables halve the time of compiling: what is checked is the same.
if(OVFAST_SANITIZE STREQUAL "address")
    add_compile_options(-fsanitize=address,undefined -fno-omit-frame-pointer
                        -fno-sanitize-recover=undefined -Og -g1)
    add_link_options(-fsanitize=address,undefined)
elseif(OVFAST_SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -Og -g1)
    add_link_options(-fsanitize=thread)
elseif(OVFAST_SANITIZE)
    message(FATAL_ERROR
            "OVFAST_SANITIZE is '${OVFAST_SANITIZE}', expected nothing, 'address' or 'thread'")
endif()
