if(OVFAST_SANITIZE STREQUAL "address")
    add_compile_options(-fsanitize=address,undefined -fno-omit-frame-pointer
                        -fno-sanitize-recover=undefined -g)
    add_link_options(-fsanitize=address,undefined)
elseif(OVFAST_SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=thread)
elseif(OVFAST_SANITIZE)
    message(FATAL_ERROR
            "OVFAST_SANITIZE is '${OVFAST_SANITIZE}', expected nothing, 'address' or 'thread'")
endif()
