-- Returns the address of a topic, as pgchannels/names.py does; an error if the name is impossible.
CREATE FUNCTION {schema}.topic_address(topic text, prefix text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF topic ~ '^[a-zA-Z0-9_.:/@-]{1,99}$' IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s is no topic', coalesce(quote_literal(left(topic, 100)), 'NULL')),
            HINT = 'A topic has 1 to 99 ASCII letters, digits and ''-_.:/@''.';
    END IF;
    IF prefix ~ '^[a-zA-Z0-9_.-]{1,50}$' IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s is no prefix', coalesce(quote_literal(left(prefix, 100)), 'NULL')),
            HINT = 'A prefix has 1 to 50 ASCII letters, digits and ''-_.''; it is an option of the layers that receive.';
    END IF;
    RETURN 'topic:' || prefix || ':' || topic;
END
$$
